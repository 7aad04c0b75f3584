package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
)

func newStatus() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:     "status",
		GroupID: "look",
		Short:   "Show the mesh's processes, their addresses and restarts",
		Example: `  holdfast status
  holdfast status -o json --data-dir .holdfast`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			return printStatus(cmd, output, s)
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

func printStatus(cmd *cobra.Command, output format, s *localmesh.Status) error {
	if output == "json" {
		return printJSON(cmd.OutOrStdout(), s)
	}
	out := strings.TrimPrefix(renderTable(s), "\n")
	if s.Page != "" {
		out += "\nReplicas page: " + s.Page + "\n"
	}
	if len(s.Partition) > 0 {
		out += "The stores are partitioned on purpose: see `holdfast fault status`.\n"
	}
	_, err := fmt.Fprint(cmd.OutOrStdout(), out)
	return err
}

func newScale() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:     "scale NODES",
		GroupID: "mesh",
		Short:   "Add or remove nodes while the mesh runs; nothing is lost",
		Long: `Brings the running mesh to NODES nodes. A node that leaves first stops getting requests, then hands over what the others
lack, then ends. Its data stays on disk, and it starts with it when it comes back.`,
		Example: `  holdfast scale 3
  holdfast scale 6 --data-dir .holdfast`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 || n > localmesh.MaxNodes {
				return usageError{fmt.Errorf("NODES must be a number from 1 to %d, not %q", localmesh.MaxNodes, args[0])}
			}
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			s, err := client.Scale(cmd.Context(), n)
			if err != nil {
				return err
			}
			return printStatus(cmd, output, s)
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}
