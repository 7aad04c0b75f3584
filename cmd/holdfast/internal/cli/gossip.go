package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
)

func newGossip() *cobra.Command {
	c := &cobra.Command{
		Use: "gossip", GroupID: "mesh", Short: "Look at and change the key that stores gossip with", Args: noCommand,
		Example: `  holdfast gossip status
  holdfast gossip rotate`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newGossipRotate(), newGossipStatus())
	return c
}

func newGossipRotate() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Change the gossip key while the mesh runs",
		Long: `Makes a new key and changes to it in three steps, each at all stores before the next begins: they learn it, they encrypt
with it, they forget what was before. Membership goes on meanwhile. Broken off, it is simply run again.

Keys are shown by their fingerprints only.`,
		Example: `  holdfast gossip rotate
  holdfast gossip rotate -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			n := 0
			keys, err := client.Rotate(cmd.Context(), func(step string) {
				n++
				fmt.Fprintf(cmd.ErrOrStderr(), "%d/3 %s\n", n, step)
			})
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), localmesh.GossipKeys{Keys: keys})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the gossip key is now %s\n", strings.Join(keys, ", "))
			return err
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

func newGossipStatus() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use: "status", Short: "Show the fingerprints of the gossip keys that each store has", Args: cobra.NoArgs,
		Long: `Shows the fingerprints of the gossip keys that each store has. The first encrypts, all decrypt; there is more than one only
while the key is being changed.`,
		Example: `  holdfast gossip status
  holdfast gossip status -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			s, err := client.Gossip(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return table(cmd.OutOrStdout(), func(w io.Writer) {
				fmt.Fprintf(w, "STORE\tKEYS\nkey file\t%s\n", strings.Join(s.Keys, ", "))
				for _, store := range s.Stores {
					what := strings.Join(store.Keys, ", ")
					if store.Error != "" {
						what = store.Error
					}
					fmt.Fprintf(w, "%s\t%s\n", store.Node, what)
				}
			})
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}
