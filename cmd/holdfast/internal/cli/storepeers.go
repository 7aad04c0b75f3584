package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/internal/identity"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/internal/peercred"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/grpcpeer"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/serve"
)

const (
	// handOverTimeout bounds what a store that ends takes to hand over what its peers lack. `up` waits longer before it kills.
	handOverTimeout = 8 * time.Second
	// keysEvery is how often a store looks whether its gossip keys changed.
	keysEvery = 250 * time.Millisecond
	// maxCut bounds the body of an order to cut.
	maxCut = 64 << 10
)

// peers is a store's part in the mesh.
type peers struct {
	flags  storeFlags
	paths  localmesh.Paths
	log    *slog.Logger
	node   *gossip.Node
	client *grpcpeer.Client
	server *grpcpeer.Server
	served chan error

	// life ends when close begins; end ends it. followed waits for who watches the key file.
	life     context.Context
	end      context.CancelFunc
	followed sync.WaitGroup

	// mu guards what this store was told last.
	mu sync.Mutex
	// keys is the text of the key file.
	// +checklocks:mu
	keys []byte
	// +checklocks:mu
	cut []string
}

// joinPeers makes this store a member of the mesh; close hands over what the others lack, leaves and waits.
func joinPeers(f storeFlags, paths localmesh.Paths, t *mesh.Topology, engine *statestore.Engine, server *serve.Server,
	registry prometheus.Registerer, log *slog.Logger,
) (*peers, error) {
	p := &peers{flags: f, paths: paths, log: log, served: make(chan error, 1)}
	var err error
	if p.keys, err = os.ReadFile(paths.GossipKey()); err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	keys, err := gossip.ParseKeys(p.keys)
	if err != nil {
		return nil, err
	}
	listener, address, source, err := p.listen(t)
	if err != nil {
		return nil, err
	}
	var join []string
	for _, n := range t.Nodes {
		join = append(join, n.Gossip)
	}
	p.client = grpcpeer.NewClient(grpcpeer.ClientConfig{Identity: source, Resolve: func(name string) (string, bool) {
		if address, ok := p.node.PeerAddress(name); ok {
			return address, true
		}
		if p.node.Dead(name) || p.isCut(name) {
			return "", false
		}
		// Not seen yet: gossip may be slower than the placement.
		return placedAt(engine, name)
	}})
	p.node, err = gossip.Start(gossip.Config{
		Node: f.node, Replica: engine.Replica(), Bind: f.gossip, PeerAddress: address, Join: join, Keys: keys, Label: t.Name(),
		Engine: engine, Dialer: p.client, Logger: log, Metrics: registry,
	})
	if err != nil {
		p.client.Close()
		return nil, errors.Join(err, listener.Close())
	}
	if f.faults {
		p.recut()
	}
	p.server = grpcpeer.NewServer(grpcpeer.ServerConfig{
		Accept: p.node.Accept, Peer: func() grpcpeer.Peer { return server.NewPeer() }, Identity: source, Logger: log,
	})
	go func() { p.served <- p.server.Serve(listener) }()
	p.life, p.end = context.WithCancel(context.Background())
	p.followed.Go(p.followKeys)
	return p, nil
}

// listen opens where other stores reach this one: by TLS on TCP, or on a Unix socket, where the kernel says who it is.
func (p *peers) listen(t *mesh.Topology) (l net.Listener, address string, source *identity.Source, err error) {
	if p.flags.peer == "" || strings.HasPrefix(p.flags.peer, "unix:") {
		path := strings.TrimPrefix(p.flags.peer, "unix:")
		if path == "" {
			path = p.paths.PeerSocket(p.flags.node)
		}
		l, err = peercred.Listen(path, p.log)
		return l, "unix:" + path, nil, err
	}
	source = &identity.Source{
		Self: identity.ID{Mesh: t.Name(), Node: p.flags.node}, CA: p.paths.CA(), Identity: p.paths.Identity(p.flags.node),
	}
	if err := source.Check(); err != nil {
		return nil, "", nil, err
	}
	if l, err = net.Listen("tcp", p.flags.peer); err != nil {
		return nil, "", nil, fmt.Errorf("address for other stores: %w", err)
	}
	return l, l.Addr().String(), source, nil
}

// links are the engine's ways to other stores. The committer is missing.
func (p *peers) links() statestore.Links {
	return statestore.Links{Publisher: p.node, Replicas: p.node, Forwarder: p.client, Peers: p.node.Peers, Configured: p.node.Configure}
}

func (p *peers) close() error {
	p.end()
	p.followed.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	err := p.node.HandOver(ctx)
	p.server.Stop()
	p.client.Close()
	return errors.Join(err, <-p.served)
}

// followKeys takes changed gossip keys, so that they can be rotated while all goes on.
func (p *peers) followKeys() {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	refused := ""
	for {
		select {
		case <-p.life.Done():
			return
		case <-tick.C:
		}
		if err := p.takeKeys(); err == nil {
			refused = ""
		} else if err.Error() != refused {
			refused = err.Error()
			p.log.Error("changed gossip keys are not taken, the last ones stay", "error", err)
		}
	}
}

func (p *peers) takeKeys() error {
	file, err := os.ReadFile(p.paths.GossipKey())
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Equal(file, p.keys) {
		return nil
	}
	keys, err := gossip.ParseKeys(file)
	if err != nil {
		return err
	}
	if err := p.node.SetKeys(keys); err != nil {
		return err
	}
	p.keys = file
	p.log.Info("gossip keys changed", "fingerprints", localmesh.Fingerprints(file))
	return nil
}

func (p *peers) isCut(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.cut {
		if n == node {
			return true
		}
	}
	return false
}

// recut cuts this store off as it was before it ended.
func (p *peers) recut() {
	data, err := os.ReadFile(p.paths.Cut(p.flags.node))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var was localmesh.CutRequest
	if err == nil {
		err = json.Unmarshal(data, &was)
	}
	if err != nil {
		p.log.Error("what this store was cut off from is lost", "error", err)
		return
	}
	if len(was.Nodes) > 0 {
		p.setCut(was.Nodes)
	}
}

// setCut cuts this store off from these nodes' stores and from no others.
func (p *peers) setCut(nodes []string) {
	p.mu.Lock()
	p.cut = nodes
	p.mu.Unlock()
	p.node.Cut(nodes)
	if len(nodes) == 0 {
		p.log.Warn("no longer cut off on purpose")
		return
	}
	p.log.Warn("cut off on purpose", "nodes", nodes)
}

// http adds to a store's HTTP socket what the local mesh needs: see localmesh.CutRequest and localmesh.GossipKeys.
func (p *peers) http(rest http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	mux.HandleFunc("GET /v1/gossip", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		keys := localmesh.GossipKeys{Keys: localmesh.Fingerprints(p.keys)}
		p.mu.Unlock()
		answerJSON(w, http.StatusOK, keys)
	})
	mux.HandleFunc("GET /v1/cut", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		cut := localmesh.CutRequest{Nodes: append([]string{}, p.cut...)}
		p.mu.Unlock()
		answerJSON(w, http.StatusOK, cut)
	})
	mux.HandleFunc("PUT /v1/cut", p.takeCut)
	return mux
}

func (p *peers) takeCut(w http.ResponseWriter, r *http.Request) {
	if !p.flags.faults {
		answerJSON(w, http.StatusForbidden, localmesh.ErrorBody{Error: "this store takes no faults: only those of a local mesh do (--faults)"})
		return
	}
	var req localmesh.CutRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCut))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		answerJSON(w, http.StatusBadRequest, localmesh.ErrorBody{Error: fmt.Sprintf("body must be {\"nodes\": […]}: %v", err)})
		return
	}
	// For a store that starts anew: it must not meet the others before somebody tells it again.
	data, err := json.Marshal(req)
	if err == nil {
		err = os.WriteFile(p.paths.Cut(p.flags.node), data, 0o600)
	}
	if err != nil {
		answerJSON(w, http.StatusInternalServerError, localmesh.ErrorBody{Error: err.Error()})
		return
	}
	p.setCut(req.Nodes)
	answerJSON(w, http.StatusOK, req)
}

func answerJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // The caller is gone where this fails.
}
