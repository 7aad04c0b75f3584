package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/internal/identity"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
)

// newIdentity is for who starts stores without `up`, in tests and measurements.
func newIdentity() *cobra.Command {
	var runDir string
	c := &cobra.Command{
		Use: "identity", GroupID: "process", Hidden: true, Args: cobra.NoArgs,
		Short: "Make a CA and certificates for the nodes of a run folder's mesh.json",
		Long: `Makes a CA, whose key is not kept, and a certificate for each node of the run folder's mesh.json, where stores that are
started with --peer HOST:PORT look for them. They are good for a day.`,
		RunE: func(*cobra.Command, []string) error { return writeIdentities(localmesh.Paths{Run: runDir}, time.Now()) },
	}
	c.Flags().StringVar(&runDir, "run-dir", "", "folder with mesh.json (required)")
	_ = c.MarkFlagRequired("run-dir")
	return c
}

func writeIdentities(paths localmesh.Paths, now time.Time) error {
	t, err := mesh.Read(paths.Topology())
	if err != nil {
		return err
	}
	ca, err := identity.NewAuthority(t.Name(), now)
	if err != nil {
		return err
	}
	if err := os.WriteFile(paths.CA(), ca.Certificate(), 0o600); err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	for _, n := range t.Nodes {
		cert, err := ca.Issue(n.Name, now)
		if err != nil {
			return err
		}
		path := paths.Identity(n.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("certificate of %s: %w", n.Name, err)
		}
		if err := os.WriteFile(path, cert, 0o600); err != nil {
			return fmt.Errorf("certificate of %s: %w", n.Name, err)
		}
	}
	return nil
}
