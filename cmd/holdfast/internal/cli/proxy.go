package cli

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
)

func newProxy() *cobra.Command {
	c := &cobra.Command{
		Use: "proxy", GroupID: "look", Short: "Look at the Envoys", Args: noCommand,
		Example: "  holdfast proxy status",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newProxyStatus())
	return c
}

func newProxyStatus() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what each Envoy was sent and whether it took it, for each xDS type",
		Example: `  holdfast proxy status
  holdfast proxy status -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			view := struct {
				localmesh.ProxyList
				Configuration localmesh.Configuration `json:"configuration"`
			}{}
			if err := client.Admin(cmd.Context(), http.MethodGet, "/v1/proxies", nil, &view.ProxyList); err != nil {
				return err
			}
			if err := client.Admin(cmd.Context(), http.MethodGet, "/v1/config", nil, &view.Configuration); err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), view)
			}
			err = table(cmd.OutOrStdout(), func(w io.Writer) {
				fmt.Fprintln(w, "PROXY\tCONNECTED\tTYPE\tVERSION\tSTATE\tREASON")
				for _, p := range view.Proxies {
					for _, t := range p.Types {
						fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\t%s\n", p.Name, p.Connected, t.Type, t.Version, t.State, t.Error)
					}
				}
			})
			if view.Configuration.Error != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "\nThe configuration file was refused, the last good one stays:\n%s\n", view.Configuration.Error)
			}
			if t := view.Configuration.Troubles(); len(t) > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "\nNot as the configuration says:\n%s\n", strings.Join(t, "\n"))
			}
			return err
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}
