package cli

import (
	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

func newGuard() *cobra.Command {
	return &cobra.Command{
		Use:    "guard",
		Short:  "Ends what is left when up is killed (used by up)",
		Hidden: true,
		Args:   cobra.NoArgs,
		Run:    func(cmd *cobra.Command, _ []string) { supervise.Guard(cmd.InOrStdin()) },
	}
}
