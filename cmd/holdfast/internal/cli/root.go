// Package cli is the command line: flags to configuration, configuration to the parts, in the order in which they start.
//
// Whatever goes wrong is printed as one message that says what to do. Exit codes: 0 done, 1 failed (or a check did), 2
// wrong usage, 3 no mesh is running. Results go to standard output, all else to standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
)

// Exit codes.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
)

// errSilent is a failure whose message is out already.
var errSilent = errors.New("failed")

// usageError is a wrong flag or argument.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// Main runs the command line and returns the exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	var option localmesh.OptionError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSilent):
		return exitFailed
	// Cobra has no type for this one.
	case errors.As(err, &usage), errors.As(err, &option), strings.HasPrefix(err.Error(), "required flag(s)"):
		fmt.Fprintf(errOut, "holdfast: %v\nSee `%s --help`.\n", err, cmd.CommandPath())
		return exitUsage
	case errors.Is(err, localmesh.ErrNotRunning):
		fmt.Fprintf(errOut, "holdfast: %v\n", err)
		return exitNotRunning
	}
	fmt.Fprintf(errOut, "holdfast: %v\n", err)
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "State for the service mesh",
		Long: `Holdfast gives gRPC services their state with the request and takes their changes back with the reply.
Envoy carries both; a state store beside it keeps them.`,
		Example: `  holdfast up -f holdfast.yaml --nodes 3
  holdfast status
  holdfast check
  holdfast key get qa.Presentation/kubecon`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddGroup(
		&cobra.Group{ID: "mesh", Title: "Your mesh:"},
		&cobra.Group{ID: "look", Title: "Look inside:"},
		&cobra.Group{ID: "process", Title: "Single processes (used by up):"},
	)
	root.SetHelpCommandGroupID("look")
	root.SetCompletionCommandGroupID("look")
	root.AddCommand(
		newUp(), newScale(), newFault(), newGossip(),
		newStatus(), newCheck(), newProxy(), newKey(), newVersion(),
		newEtcd(), newControlPlane(), newStore(), newGuard(), newIdentity(),
	)
	usageArgs(root)
	return root
}

// noCommand refuses the arguments of a command that has only commands in it, and says which one may have been meant.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	// Cobra sets this only where it reports the unknown command itself, which has no exit code of its own.
	cmd.SuggestionsMinimumDistance = 2
	message := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	var meant []string
	for _, name := range cmd.SuggestionsFor(args[0]) {
		meant = append(meant, fmt.Sprintf("`%s %s`", cmd.CommandPath(), name))
	}
	if len(meant) > 0 {
		message += ": did you mean " + strings.Join(meant, " or ") + "?"
	}
	return errors.New(message)
}

// usageArgs makes wrong arguments of any command a usage error.
func usageArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageArgs(sub)
	}
}

// dataDirFlag says which mesh a command is about.
func dataDirFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "data-dir", ".holdfast", "the mesh's data directory; it says which mesh is meant")
	_ = c.MarkFlagDirname("data-dir")
}

func clientFor(dataDir string) (localmesh.Client, error) {
	paths, err := localmesh.Locate(dataDir)
	return localmesh.Client{Paths: paths}, err
}

// newLogger is the log of a process of ours: text on standard error, which `up` writes to the process's log file.
func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
}
