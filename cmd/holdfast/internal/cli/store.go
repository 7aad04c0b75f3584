package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func newStore() *cobra.Command {
	var node, data, runDir, gossip string
	c := &cobra.Command{
		Use:     "store",
		GroupID: "process",
		Short:   "Run a node's state store",
		Example: `  holdfast store --node node-1 --data .holdfast/nodes/node-1/store --run-dir "$(readlink .holdfast/run)" --gossip 127.0.0.1:8201`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return errors.New("not wired yet") },
	}
	f := c.Flags()
	f.StringVar(&node, "node", "", "the node's name (required)")
	f.StringVar(&data, "data", "", "data directory (required)")
	f.StringVar(&runDir, "run-dir", "", "the mesh's run folder with mesh.json (required)")
	f.StringVar(&gossip, "gossip", "", "address for gossip, UDP and TCP (required)")
	for _, name := range []string{"node", "data", "run-dir", "gossip"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}
