// Package stores runs store processes without Envoys and without a control plane, for tests and measurements from outside.
//
// It starts bin/holdfast store with a run folder as `holdfast up` writes it, configures the stores over their API socket as
// the control plane does, and kills, pauses, wipes and restarts them. It knows the product by its command line and its wire
// forms only.
package stores

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	randv2 "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Options says which stores to prepare.
type Options struct {
	Count int
	Types []*configv1.EntityType
	// Binary is the program; empty means the repository's bin/holdfast.
	Binary string
	// Data is the folder of store i's data, counted from 0; nil means one in the cluster's folder.
	Data func(i int) string
	// Env is added to the stores' environment.
	Env []string
	// TLS lets the stores talk to each other by TCP with certificates, as `holdfast up` does; without it by Unix sockets.
	TLS bool
	// Faults lets Cut work.
	Faults bool
	// Prefix is put before each store's command line, for example to run it in a network namespace.
	Prefix []string
}

// Cluster is a set of stores that know each other. Its methods may be called from many goroutines, those of one store from
// one at a time.
type Cluster struct {
	opts   Options
	folder string
	run    string
	stores []*Store

	// mu guards the fields below.
	mu sync.Mutex
	// placed is how many of the stores the placement names.
	placed int
	epoch  uint64
	types  []*configv1.EntityType
}

// Store is one of them.
type Store struct {
	Name   string
	Data   string
	Gossip string
	// Peer is its address for other stores as the placement spells it.
	Peer string
	// Starts counts the processes so far.
	Starts int

	socket, folder string
	cmd            *exec.Cmd
	exited         <-chan struct{}
	log            logBuffer
}

// topology is mesh.json.
type topology struct {
	Gateway struct{}       `json:"gateway"`
	Etcd    []string       `json:"etcd"`
	Nodes   []topologyNode `json:"nodes"`
}

type topologyNode struct {
	Name        string `json:"name"`
	StoreSocket string `json:"storeSocket"`
	Peer        string `json:"peer"`
	Gossip      string `json:"gossip"`
}

// New prepares stores and starts none.
func New(opts Options) (_ *Cluster, err error) {
	if opts.Binary == "" {
		root, err := rig.Root()
		if err != nil {
			return nil, err
		}
		opts.Binary = filepath.Join(root, "bin/holdfast")
	}
	if opts.Binary, err = filepath.Abs(opts.Binary); err != nil {
		return nil, err
	}
	if _, err := os.Stat(opts.Binary); err != nil {
		return nil, fmt.Errorf("run `make build` first: %w", err)
	}
	folder, err := os.MkdirTemp("", "hf-st-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(folder))
		}
	}()
	c := &Cluster{opts: opts, folder: folder, run: filepath.Join(folder, "run"), placed: opts.Count, epoch: 1, types: opts.Types}
	ports, err := freePorts(2 * opts.Count)
	if err != nil {
		return nil, err
	}
	// Nobody listens there: these stores have no strong entities.
	t := topology{Etcd: []string{"127.0.0.1:1"}}
	for i := range opts.Count {
		s := &Store{Name: fmt.Sprintf("node-%d", i+1), Gossip: fmt.Sprintf("127.0.0.1:%d", ports+i)}
		s.folder = filepath.Join(c.run, s.Name)
		s.socket = filepath.Join(s.folder, "store.sock")
		s.Data = filepath.Join(folder, "data", s.Name)
		if opts.Data != nil {
			s.Data = opts.Data(i)
		}
		if s.Peer = "unix:" + filepath.Join(s.folder, "peer.sock"); opts.TLS {
			s.Peer = fmt.Sprintf("127.0.0.1:%d", ports+opts.Count+i)
		}
		if err := os.MkdirAll(s.folder, 0o700); err != nil {
			return nil, err
		}
		c.stores = append(c.stores, s)
		t.Nodes = append(t.Nodes, topologyNode{Name: s.Name, StoreSocket: s.socket, Peer: s.Peer, Gossip: s.Gossip})
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	if err := os.WriteFile(filepath.Join(c.run, "gossip.key"), []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
		return nil, err
	}
	mesh, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(c.run, "mesh.json"), mesh, 0o600); err != nil || !opts.TLS {
		return c, err
	}
	if out, err := exec.Command(opts.Binary, "identity", "--run-dir", c.run).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("certificates: %w\n%s", err, out)
	}
	return c, nil
}

// Start prepares stores, starts them all and configures them.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	c, err := New(opts)
	if err != nil {
		return nil, err
	}
	if err := c.StartAll(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, c.Logs(20)), c.Close())
	}
	return c, nil
}

// StartAll starts the stores that the placement names, all at once, and waits until they know each other.
func (c *Cluster) StartAll(ctx context.Context) error {
	c.mu.Lock()
	n := c.placed
	c.mu.Unlock()
	problems := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { problems[i] = c.StartStore(ctx, i) })
	}
	wg.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return c.WaitConnected(ctx)
}

// Store returns store i, counted from 0.
func (c *Cluster) Store(i int) *Store { return c.stores[i] }

// Count is the number of prepared stores.
func (c *Cluster) Count() int { return len(c.stores) }

// PID is the process id of a store that was started.
func (s *Store) PID() int { return s.cmd.Process.Pid }

// StartStore starts store i, waits until it answers, and configures it.
func (c *Cluster) StartStore(ctx context.Context, i int) error {
	if err := c.Launch(i); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if err := c.waitUp(ctx, i); err != nil {
		return err
	}
	return c.configure(ctx, i)
}

// Configuration is what the stores are told.
func (c *Cluster) Configuration() *storev1.Configure {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &configv1.Placement{Epoch: c.epoch, Seed: 1}
	for _, s := range c.stores[:c.placed] {
		p.Members = append(p.Members, &configv1.Member{
			Name: s.Name, Weight: 1, ServeAddress: filepath.Join(s.folder, "serve.sock"), PeerAddress: s.Peer,
		})
	}
	return &storev1.Configure{Types: c.types, Placement: p}
}

// Place changes how many stores the placement names: the first n. Configure tells them.
func (c *Cluster) Place(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placed = n
	c.epoch++
}

// SetTypes changes the entity types. Configure tells the stores.
func (c *Cluster) SetTypes(types []*configv1.EntityType) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.types = types
}

// Configure tells all running stores of the placement their configuration.
func (c *Cluster) Configure(ctx context.Context) error {
	c.mu.Lock()
	n := c.placed
	c.mu.Unlock()
	var problem error
	for i := range n {
		if c.Running(i) {
			problem = errors.Join(problem, c.configure(ctx, i))
		}
	}
	return problem
}

func (c *Cluster) configure(ctx context.Context, i int) error {
	conn, err := c.Dial(i)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Call(ctx, &storev1.Request{Call: &storev1.Request_Configure{Configure: c.Configuration()}})
	return err
}

// WaitConnected waits until every placed store that runs is connected to every other one that runs.
func (c *Cluster) WaitConnected(ctx context.Context) error {
	c.mu.Lock()
	n := c.placed
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for i := range n {
		if !c.Running(i) {
			continue
		}
		conn, err := c.Dial(i)
		if err != nil {
			return err
		}
		err = rig.Poll(ctx, func() error {
			status, err := conn.Status(ctx)
			if err != nil {
				return err
			}
			up := map[string]bool{}
			for _, p := range status.GetPeers() {
				up[p.GetName()] = p.GetConnected()
			}
			for j := range n {
				if name := c.stores[j].Name; j != i && c.Running(j) && !up[name] {
					return fmt.Errorf("%s is not connected to %s", c.stores[i].Name, name)
				}
			}
			return nil
		})
		conn.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// freePorts finds n ports in a row that nobody listens on.
func freePorts(n int) (first int, err error) {
	for range 50 {
		first := firstPort + randv2.IntN(lastPort-firstPort-n)
		if free(first, n) {
			return first, nil
		}
	}
	return 0, fmt.Errorf("no %d free ports between %d and %d", n, firstPort, lastPort)
}

func free(first, n int) bool {
	for port := first; port < first+n; port++ {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			return false
		}
		l.Close()
		u, err := net.ListenPacket("udp", address)
		if err != nil {
			return false
		}
		u.Close()
	}
	return true
}
