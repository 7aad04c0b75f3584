package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// keyView is the control plane's GET /v1/keys/{type}/{key}, without what each store has.
type keyView struct {
	Type        string          `json:"type"`
	Key         string          `json:"key"`
	Exists      bool            `json:"exists"`
	Value       json.RawMessage `json:"value,omitempty"`
	Version     string          `json:"version"`
	Slot        int             `json:"slot"`
	Consistency string          `json:"consistency"`
	Owner       string          `json:"owner"`
	Replicas    []string        `json:"replicas"`
	Active      bool            `json:"active"`
}

func printKey(w io.Writer, k *keyView) error {
	value, owner := "(does not exist)", "-"
	if k.Exists {
		value = string(k.Value)
	}
	if k.Owner != "" {
		owner = k.Owner
	}
	return table(w, func(w io.Writer) {
		fmt.Fprintf(w, "Type:\t%s\nKey:\t%s\nValue:\t%s\nVersion:\t%s\n", k.Type, k.Key, value, k.Version)
		fmt.Fprintf(w, "Consistency:\t%s\nSlot:\t%d\nOwner:\t%s\nReplicas:\t%s\n", k.Consistency, k.Slot, owner, strings.Join(k.Replicas, ", "))
		fmt.Fprintf(w, "In memory:\t%v\n", k.Active)
	})
}

func newKey() *cobra.Command {
	c := &cobra.Command{
		Use: "key", GroupID: "look", Short: "Look at entities", Args: noCommand,
		Example: `  holdfast key get qa.Presentation/kubecon
  holdfast key show qa.Presentation/kubecon --replicas
  holdfast key history cart.Cart/ada`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newKeyGet(), newKeyShow(), newKeyHistory())
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
			path, err := keyPath(args[0])
			if err != nil {
				return err
			}
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			var k keyView
			if err := client.Admin(cmd.Context(), http.MethodGet, path, nil, &k); err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), k)
			}
			return printKey(cmd.OutOrStdout(), &k)
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}
