// Package serve gives each Envoy its resources, over one incremental ADS stream on a Unix socket, and keeps a ledger of
// what each has taken or refused.
//
// A resource that an Envoy refused is not sent to it again until it changes, or the Envoy comes back. An Envoy that nobody
// set resources for waits. The version of a type is a hash of its resources, so that setting the same twice sends nothing.
package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/holdfast-mesh/holdfast/xds/translate"
)

// Options of a Server.
type Options struct {
	// Socket is the path of the Unix socket to listen on, in a private folder.
	Socket string
	Log    *slog.Logger
	// Now is the clock of the ledger's times.
	Now func() time.Time
}

// Server is the ADS server. Set, Remove and Status may be called before and while Run does its work, by anyone.
type Server struct {
	opts   Options
	cache  cachev3.SnapshotCache
	ledger *ledger
	open   atomic.Int64

	// mu makes a change of the ledger and the same of the cache one step.
	mu sync.Mutex
}

// New returns a Server that doesn't listen yet.
func New(opts Options) *Server {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Server{
		opts:   opts,
		cache:  cachev3.NewSnapshotCache(true, cachev3.IDHash{}, silent{}),
		ledger: newLedger(opts.Now),
	}
}

// Set gives a proxy its resources, all of them. It refuses what does not hang together.
func (s *Server) Set(r *translate.Resources) error {
	snapshot, versions, err := newSnapshot(r)
	if err != nil {
		return fmt.Errorf("proxy %s: %w", r.Proxy, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The ledger first: an answer may come before SetSnapshot returns.
	s.ledger.want(r.Proxy, versions, snapshot.VersionMap)
	if err := s.cache.SetSnapshot(context.Background(), r.Proxy, snapshot); err != nil {
		return fmt.Errorf("proxy %s: set resources: %w", r.Proxy, err)
	}
	return nil
}

// Remove forgets a proxy that left the mesh. Where it still runs it keeps what it has, until it goes; if it is set
// resources before that, it gets them.
func (s *Server) Remove(proxy string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Clearing the cache would drop what a stream waits for.
	if s.ledger.forget(proxy) {
		s.cache.ClearSnapshot(proxy)
	}
}

// Status tells what each proxy has taken or refused, by name.
func (s *Server) Status() []ProxyStatus { return s.ledger.status() }

// Changed is closed at the next change of Status.
func (s *Server) Changed() <-chan struct{} { return s.ledger.wait() }

// Answers counts the acknowledgements and the refusals since the start.
func (s *Server) Answers() (acks, nacks uint64) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	return s.ledger.acks, s.ledger.nacks
}

// Streams is the number of streams that are open.
func (s *Server) Streams() int64 { return s.open.Load() }

// Run listens until ctx is done. Envoys keep what they have when it ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.Remove(s.opts.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("serve xDS: %w", err)
	}
	lis, err := net.Listen("unix", s.opts.Socket)
	if err != nil {
		return fmt.Errorf("serve xDS: %w", err)
	}
	if err := os.Chmod(s.opts.Socket, 0o600); err != nil {
		lis.Close()
		return fmt.Errorf("serve xDS: %w", err)
	}
	streams, end := context.WithCancel(context.Background())
	defer end()
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(streams, s.cache, s.callbacks()))
	done := make(chan error, 1)
	go func() { done <- g.Serve(lis) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve xDS: %w", err)
	case <-ctx.Done():
	}
	end()
	// Streams end by themselves now; one that does not must not keep the process.
	force := time.AfterFunc(stopGrace, g.Stop)
	g.GracefulStop()
	force.Stop()
	if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve xDS: %w", err)
	}
	return nil
}

func (s *Server) callbacks() serverv3.Callbacks {
	return serverv3.CallbackFuncs{
		DeltaStreamOpenFunc: func(context.Context, int64, string) error {
			s.open.Add(1)
			return nil
		},
		DeltaStreamClosedFunc: func(id int64, _ *corev3.Node) {
			s.open.Add(-1)
			s.mu.Lock()
			defer s.mu.Unlock()
			name, forgotten := s.ledger.closed(id)
			if forgotten {
				s.cache.ClearSnapshot(name)
			}
			s.opts.Log.Info("proxy disconnected", "proxy", name)
		},
		StreamDeltaRequestFunc: func(id int64, req *discoveryv3.DeltaDiscoveryRequest) error {
			name, first := s.ledger.request(id, req)
			if first {
				s.opts.Log.Info("proxy connected", "proxy", name)
			}
			if e := req.GetErrorDetail(); e != nil {
				s.opts.Log.Warn("proxy refused resources", "proxy", name, "type", req.GetTypeUrl(), "reason", clip(e.GetMessage()))
			}
			return nil
		},
		StreamDeltaResponseFunc: func(id int64, _ *discoveryv3.DeltaDiscoveryRequest, resp *discoveryv3.DeltaDiscoveryResponse) {
			s.ledger.response(id, resp)
		},
	}
}

// newSnapshot makes the cache's form of r, with a version for each type that is a hash of its content.
func newSnapshot(r *translate.Resources) (*cachev3.Snapshot, map[string]string, error) {
	out := &cachev3.Snapshot{}
	for url, list := range r.ByType {
		index := cachev3.GetResponseType(url)
		if index == types.UnknownType {
			return nil, nil, fmt.Errorf("type %s is not known", url)
		}
		items := make([]types.Resource, 0, len(list))
		for _, m := range list {
			items = append(items, m)
		}
		out.Resources[index] = cachev3.NewResources("", items)
		if got := len(out.Resources[index].Items); got != len(list) {
			return nil, nil, fmt.Errorf("%s: %d resources have %d names", url, len(list), got)
		}
	}
	if err := out.Consistent(); err != nil {
		return nil, nil, err
	}
	if err := out.ConstructVersionMap(); err != nil {
		return nil, nil, err
	}
	versions := map[string]string{}
	for url := range r.ByType {
		byName := out.VersionMap[url]
		names := make([]string, 0, len(byName))
		for name := range byName {
			names = append(names, name)
		}
		slices.Sort(names)
		h := sha256.New()
		for _, name := range names {
			fmt.Fprintf(h, "%s\x00%s\x00", name, byName[name])
		}
		versions[url] = hex.EncodeToString(h.Sum(nil)[:6])
		out.Resources[cachev3.GetResponseType(url)].Version = versions[url]
	}
	return out, versions, nil
}

// silent drops what the library would log at each request: the ledger says it better.
type silent struct{}

func (silent) Debugf(string, ...any) {}
func (silent) Infof(string, ...any)  {}
func (silent) Warnf(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
