package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func newKey() *cobra.Command {
	c := &cobra.Command{
		Use: "key", GroupID: "look", Short: "Look at entities", Args: cobra.NoArgs,
		Example: "  holdfast key get qa.Presentation/kubecon",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newKeyGet())
	return c
}

func newKeyGet() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:   "get TYPE/KEY",
		Short: "Show an entity's value, version, owner and replicas, without activating it",
		Example: `  holdfast key get qa.Presentation/kubecon
  holdfast key get bank.Account/alice -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			typ, key, ok := strings.Cut(args[0], "/")
			if !ok || typ == "" || key == "" {
				return usageError{fmt.Errorf("want TYPE/KEY, for example qa.Presentation/kubecon, not %q", args[0])}
			}
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			var k map[string]any
			path := "/v1/keys/" + url.PathEscape(typ) + "/" + url.PathEscape(key)
			if err := client.Admin(cmd.Context(), http.MethodGet, path, nil, &k); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), k)
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}
