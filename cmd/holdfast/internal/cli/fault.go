package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
)

func newFault() *cobra.Command {
	c := &cobra.Command{
		Use: "fault", GroupID: "mesh", Short: "Break the local mesh on purpose, and mend it", Args: noCommand,
		Long: `Cuts stores off from each other, to see what becomes of entities on both sides and afterwards. Only the mesh that
` + "`holdfast up`" + ` runs on this machine can be broken like this.`,
		Example: `  holdfast fault partition node-1,node-2 node-3,node-4
  holdfast fault status
  holdfast fault heal`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newFaultPartition(), newFaultHeal(), newFaultStatus())
	return c
}

func newFaultPartition() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:   "partition NODE,… [NODE,… …]",
		Short: "Cut groups of stores off from each other",
		Long: `Each argument is a group of nodes. A store reaches those of its own group only: no membership, no deltas, no forwarded
calls pass between groups. Nodes that are not listed are the last group together. It replaces an earlier partition.

Envoys, services, etcd and the control plane still reach everybody: it is the replicas that lose each other. Entities that
are eventual go on being written on all sides; strong ones go on wherever etcd is reached, but calls aren't forwarded to an
owner on another side.`,
		Example: `  holdfast fault partition node-1,node-2 node-3,node-4   # and the others, if there are any, are a third group
  holdfast fault partition node-1                        # node-1 | all others`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			groups, err := parseGroups(args)
			if err != nil {
				return usageError{err}
			}
			return runFault(cmd, dataDir, output, func(c localmesh.Client) (*localmesh.Fault, error) {
				return c.Partition(cmd.Context(), groups)
			})
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

// parseGroups reads "a,b" "c". A lone "|" between groups is how people draw it, so it is taken.
func parseGroups(args []string) ([][]string, error) {
	var groups [][]string
	for _, arg := range args {
		if arg == "|" {
			continue
		}
		g := strings.Split(arg, ",")
		if slices.Contains(g, "") {
			return nil, fmt.Errorf("want groups like node-1,node-2, not %q", arg)
		}
		groups = append(groups, g)
	}
	if len(groups) == 0 {
		return nil, errors.New("name at least one group of nodes, like node-1,node-2")
	}
	return groups, nil
}

func newFaultHeal() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use: "heal", Short: "Let all stores reach each other again", Args: cobra.NoArgs,
		Example: `  holdfast fault heal
  holdfast fault heal --data-dir .holdfast`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runFault(cmd, dataDir, output, func(c localmesh.Client) (*localmesh.Fault, error) { return c.Partition(cmd.Context(), nil) })
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

func newFaultStatus() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use: "status", Short: "Show what is broken on purpose", Args: cobra.NoArgs,
		Example: `  holdfast fault status
  holdfast fault status -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runFault(cmd, dataDir, output, func(c localmesh.Client) (*localmesh.Fault, error) { return c.Fault(cmd.Context()) })
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

// runFault asks the mesh and prints what is broken now.
func runFault(cmd *cobra.Command, dataDir string, output format, ask func(localmesh.Client) (*localmesh.Fault, error)) error {
	client, err := clientFor(dataDir)
	if err != nil {
		return err
	}
	f, err := ask(client)
	switch {
	case errors.Is(err, localmesh.ErrNotRunning):
		return fmt.Errorf("%w (faults are for a local mesh only)", err)
	case err != nil:
		return err
	case output == "json":
		return printJSON(cmd.OutOrStdout(), f)
	}
	text := f.String()
	if len(f.Waiting) > 0 {
		text += fmt.Sprintf("\nnot so yet at %s: its store does not answer, and is told as soon as it does", strings.Join(f.Waiting, ", "))
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
