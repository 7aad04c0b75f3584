package cli

import (
	"errors"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

func newEtcd() *cobra.Command {
	var cfg etcd.Config
	var httpSocket string
	c := &cobra.Command{
		Use:     "etcd",
		GroupID: "process",
		Short:   "Run the mesh's etcd: one member, every write fsynced",
		Example: `  holdfast etcd --data .holdfast/etcd --client http://127.0.0.1:8190 --peer http://127.0.0.1:8191`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var ready atomic.Bool
			cfg.Logger = newLogger(cmd.ErrOrStderr())
			cfg.Ready = func() { ready.Store(true) }
			stop, err := serveUnix(httpSocket, readyMux(newRegistry(), func() error {
				if !ready.Load() {
					return errors.New("etcd is starting")
				}
				return nil
			}), cfg.Logger)
			if err != nil {
				return err
			}
			defer stop()
			return etcd.Serve(cmd.Context(), cfg)
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Dir, "data", "", "data directory (required)")
	f.StringVar(&cfg.ClientURL, "client", "", "URL for clients (required)")
	f.StringVar(&cfg.PeerURL, "peer", "", "URL for other members (required)")
	f.StringVar(&httpSocket, "http", "", "Unix socket for /readyz and /metrics")
	for _, name := range []string{"data", "client", "peer"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}
