package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func newControlPlane() *cobra.Command {
	var file, runDir string
	c := &cobra.Command{
		Use:     "controlplane",
		GroupID: "process",
		Short:   "Run the control plane: configuration in, xDS and placement out",
		Example: `  holdfast controlplane --file holdfast.yaml --run-dir "$(readlink .holdfast/run)"`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return errors.New("not wired yet") },
	}
	f := c.Flags()
	f.StringVar(&file, "file", "", "configuration (required)")
	f.StringVar(&runDir, "run-dir", "", "the mesh's run folder with mesh.json (required)")
	_ = c.MarkFlagRequired("file")
	_ = c.MarkFlagRequired("run-dir")
	return c
}
