package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release; a build from a clone adds its commit.
const version = "0.1.0-dev"

func newVersion() *cobra.Command {
	var output format
	c := &cobra.Command{
		Use:     "version",
		GroupID: "look",
		Short:   "Print the version",
		Example: `  holdfast version
  holdfast version -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit,omitempty"`
				Go      string `json:"go"`
			}{Version: version}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Go = info.GoVersion
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "holdfast %s %s %s\n", v.Version, v.Commit, v.Go)
			return err
		},
	}
	outputFlag(c, &output)
	return c
}
