package etcd

import (
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
	// Dir is the data directory. It is made where it does not exist.
	Dir string
	// ClientURL and PeerURL are "http://127.0.0.1:port". With one member nobody uses the peer URL, but etcd listens on it.
	ClientURL, PeerURL string
	Logger             *slog.Logger
	// Ready, where set, is called once the server answers.
	Ready func()
}

// Serve runs a single-member etcd until ctx ends; it returns nil then, and an error when the server cannot start or
// stops by itself. Every acknowledged write was fsynced.
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
	start := time.NewTimer(startTimeout)
	defer start.Stop()
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	case <-server.Server.StopNotify():
		return fmt.Errorf("start etcd in %s: stopped", cfg.Dir)
	case <-start.C:
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
	client, err := url.Parse(cfg.ClientURL)
	if err != nil {
		return nil, fmt.Errorf("etcd client URL: %w", err)
	}
	peer, err := url.Parse(cfg.PeerURL)
	if err != nil {
		return nil, fmt.Errorf("etcd peer URL: %w", err)
	}
	ec := embed.NewConfig()
	ec.Name = "holdfast"
	ec.Dir = cfg.Dir
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	ec.UnsafeNoFsync = false
	ec.SnapshotCount = snapshotEvery
	ec.QuotaBackendBytes = quotaBytes
	ec.BootstrapDefragThresholdMegabytes = defragFreeMegabytes
	ec.AutoCompactionMode = embed.CompactorModePeriodic
	ec.AutoCompactionRetention = compactionRetention.String()
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
