package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config configures Serve.
type Config struct {
	// Name is the member's name; "" is DefaultName.
	Name string
	// Dir is the data directory. It is made where it does not exist.
	Dir string
	// ClientURL and PeerURL are where the server listens: "http://127.0.0.1:port", or https with ClientTLS and PeerTLS.
	ClientURL, PeerURL string
	// AdvertiseClient and AdvertisePeer are where others reach it, if that is elsewhere.
	AdvertiseClient, AdvertisePeer string
	// InitialCluster lists the members that begin together, this one among them, as "name=advertised peer URL,…"; "" is this
	// one alone. It is looked at only at the first start.
	InitialCluster string
	// Existing joins a cluster that runs already and was told of this member.
	Existing bool
	// ClientTLS and PeerTLS are for https URLs; who connects must have a certificate of their CA.
	ClientTLS, PeerTLS TLS
	// QuotaBytes bounds the database file; 0 is DefaultQuota.
	QuotaBytes int64
	Logger     *slog.Logger `json:"-"`
	// Ready, where set, is called once the server answers: it is a member of a cluster that has a leader.
	Ready func() `json:"-"`
}

// DefaultName is the name of a member that has none.
const DefaultName = "holdfast"

// Serve runs an etcd, alone or as a member of a cluster, until ctx ends; it returns nil then, and an error when the server
// cannot start or stops by itself. Every acknowledged write was fsynced by a majority of the members.
func Serve(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	ec, err := serverConfig(cfg)
	if err != nil {
		return err
	}
	server, err := embed.StartEtcd(ec)
	if err != nil {
		return fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	defer server.Close()
	var late <-chan time.Time
	if ec.InitialCluster == ec.InitialClusterFromName(ec.Name) {
		// A member of more than one waits for the others as long as it takes.
		start := time.NewTimer(startTimeout)
		defer start.Stop()
		late = start.C
	}
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	case <-server.Server.StopNotify():
		return fmt.Errorf("start etcd in %s: stopped", cfg.Dir)
	case <-late:
		return fmt.Errorf("start etcd in %s: not ready after %s", cfg.Dir, startTimeout)
	case <-ctx.Done():
		return nil
	}
	cfg.Logger.Info("etcd is ready", "client", cfg.ClientURL, "dir", cfg.Dir)
	if cfg.Ready != nil {
		cfg.Ready()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-server.Server.StopNotify():
		return errors.New("etcd stopped by itself")
	}
}

func serverConfig(cfg Config) (*embed.Config, error) {
	ec := embed.NewConfig()
	ec.Name = cmp.Or(cfg.Name, DefaultName)
	ec.Dir = cfg.Dir
	for _, u := range []struct {
		what, url string
		into      *[]url.URL
	}{
		{"client", cfg.ClientURL, &ec.ListenClientUrls},
		{"peer", cfg.PeerURL, &ec.ListenPeerUrls},
		{"advertised client", cmp.Or(cfg.AdvertiseClient, cfg.ClientURL), &ec.AdvertiseClientUrls},
		{"advertised peer", cmp.Or(cfg.AdvertisePeer, cfg.PeerURL), &ec.AdvertisePeerUrls},
	} {
		parsed, err := url.Parse(u.url)
		if err != nil {
			return nil, fmt.Errorf("etcd %s URL: %w", u.what, err)
		}
		*u.into = []url.URL{*parsed}
	}
	ec.InitialCluster = cmp.Or(cfg.InitialCluster, ec.InitialClusterFromName(ec.Name))
	if cfg.Existing {
		ec.ClusterState = embed.ClusterStateFlagExisting
	}
	c, p := &ec.ClientTLSInfo, &ec.PeerTLSInfo
	c.CertFile, c.KeyFile, c.TrustedCAFile, c.ClientCertAuth = cfg.ClientTLS.Cert, cfg.ClientTLS.Key, cfg.ClientTLS.CA, cfg.ClientTLS.CA != ""
	p.CertFile, p.KeyFile, p.TrustedCAFile, p.ClientCertAuth = cfg.PeerTLS.Cert, cfg.PeerTLS.Key, cfg.PeerTLS.CA, cfg.PeerTLS.CA != ""
	ec.UnsafeNoFsync = false
	ec.SnapshotCount = snapshotEvery
	ec.QuotaBackendBytes = cmp.Or(cfg.QuotaBytes, DefaultQuota)
	ec.BootstrapDefragThresholdMegabytes = defragFreeMegabytes
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet(cfg.Logger))
	return ec, nil
}

// quiet hands etcd's warnings and worse to log, without their many fields but the error.
func quiet(log *slog.Logger) *zap.Logger {
	return zap.New(&slogCore{log: log})
}

type slogCore struct{ log *slog.Logger }

func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.ErrorLevel }

func (c *slogCore) With([]zapcore.Field) zapcore.Core { return c }

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		if f.Key == "error" {
			f.AddTo(enc)
		}
	}
	c.log.Error("etcd reports", "text", e.Message, "error", enc.Fields["error"])
	return nil
}

func (c *slogCore) Sync() error { return nil }
