package cli

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

func newEtcd() *cobra.Command {
	var cfg etcd.Config
	var httpSocket, state string
	c := &cobra.Command{
		Use:     "etcd",
		GroupID: "process",
		Short:   "Run an etcd, alone or as a member of a cluster",
		Long: `Runs an etcd whose every write is fsynced, with limits that suit strong entities. Alone it is a cluster of one; a member of a
larger one has a name and lists all members that begin together, by the peer URLs that they advertise. https URLs need the
TLS flags, and then serve only who has a certificate of the CA.`,
		Example: `  holdfast etcd --data .holdfast/etcd --client http://127.0.0.1:8190 --peer http://127.0.0.1:8191
  holdfast etcd --name b --data b --client https://10.0.0.2:2379 --peer https://10.0.0.2:2380 \
    --initial-cluster a=https://10.0.0.1:2380,b=https://10.0.0.2:2380,c=https://10.0.0.3:2380 \
    --cert b.pem --key b.key --ca ca.pem --peer-cert b.pem --peer-key b.key --peer-ca ca.pem`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch state {
			case "new":
			case "existing":
				cfg.Existing = true
			default:
				return usageError{fmt.Errorf("--initial-cluster-state %s: new or existing", state)}
			}
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
	c.AddCommand(newEtcdBudget())
	f := c.Flags()
	f.StringVar(&cfg.Name, "name", etcd.DefaultName, "the member's name")
	f.StringVar(&cfg.Dir, "data", "", "data directory (required)")
	f.StringVar(&cfg.ClientURL, "client", "", "URL to listen on for clients (required)")
	f.StringVar(&cfg.PeerURL, "peer", "", "URL to listen on for other members (required)")
	f.StringVar(&cfg.AdvertiseClient, "advertise-client", "", "URL at which clients reach it (default: --client)")
	f.StringVar(&cfg.AdvertisePeer, "advertise-peer", "", "URL at which other members reach it (default: --peer)")
	f.StringVar(&cfg.InitialCluster, "initial-cluster", "", "the members that begin together: NAME=PEER-URL,… (default: this one alone)")
	f.StringVar(&state, "initial-cluster-state", "new", "new, or existing to join a cluster that was told of this member")
	f.StringVar(&cfg.ClientTLS.CA, "ca", "", "CA of clients' certificates, in PEM")
	f.StringVar(&cfg.ClientTLS.Cert, "cert", "", "certificate for clients, in PEM")
	f.StringVar(&cfg.ClientTLS.Key, "key", "", "key of --cert, in PEM")
	f.StringVar(&cfg.PeerTLS.CA, "peer-ca", "", "CA of other members' certificates, in PEM")
	f.StringVar(&cfg.PeerTLS.Cert, "peer-cert", "", "certificate for other members, in PEM")
	f.StringVar(&cfg.PeerTLS.Key, "peer-key", "", "key of --peer-cert, in PEM")
	f.Int64Var(&cfg.QuotaBytes, "quota-bytes", etcd.DefaultQuota, "how large the database file may become")
	f.StringVar(&httpSocket, "http", "", "Unix socket for /readyz and /metrics")
	for _, name := range []string{"data", "client", "peer"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}
