package cli

import "github.com/spf13/cobra"

func newCheck() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:     "check",
		GroupID: "look",
		Short:   "Check every part, with a real write and read through two nodes",
		Example: `  holdfast check
  holdfast check -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := clientFor(dataDir)
			return err
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}
