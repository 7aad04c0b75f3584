package localmesh

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/internal/identity"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// Options configures a mesh.
type Options struct {
	// File is the configuration. It must have a LocalMesh.
	File string
	// Nodes is how many to start with, PortBase the gateway's port; node i's ingress is PortBase+i.
	Nodes, PortBase int
	DataDir         string
	Etcd            EtcdOptions
	// Reset removes the data of earlier runs first.
	Reset bool
	// Executable is this binary, Envoy the proxy's, ModuleDir the folder of libholdfast.so.
	Executable, Envoy, ModuleDir string
	// NewGossipKey makes the text of a file with one key, by which this mesh's stores know each other.
	NewGossipKey func() []byte
	// Page, if not nil, makes a page for people that shows the mesh m to whoever has the token. It is served at address.
	Page func(m *Mesh, address, token string) http.Handler
	// Progress, if not nil, is told what happens, one line at a time.
	Progress func(line string)
	Logger   *slog.Logger
}

// Mesh is a running mesh.
type Mesh struct {
	opts  Options
	paths Paths
	ports *ports
	// dir is the configuration file's folder.
	dir string
	// source is the configuration that the mesh was started with.
	source []byte
	lock   *os.File
	// marked is set once the data directory has the marker, claimed once the run folder is ours to remove.
	marked, claimed bool
	sup             *supervise.Supervisor
	api             *api
	page            *page
	// authority signs the stores' certificates. Its key is nowhere else: it ends with this process, as all else does.
	authority *identity.Authority

	// etcdAuthority signs the certificates of an etcd of several members; nil where there is none. It is set while starting.
	etcdAuthority *identity.Authority

	// config is what the workloads are like now.
	config atomic.Pointer[v1alpha1.Config]
	// life ends when Close begins; end ends it. followed is closed when nobody follows the configuration any more.
	life     context.Context
	end      context.CancelFunc
	followed sync.WaitGroup

	// change is held by whoever starts, scales or stops: one at a time.
	change sync.Mutex

	// mu guards what is there now. It is held for looks and small changes only, never while waiting.
	mu sync.Mutex
	// +checklocks:mu
	topology mesh.Topology
	// +checklocks:mu
	nodes []*node
	// +checklocks:mu
	single map[string]*supervise.Process
	// addresses remembers every node's, so that one that returns finds its ports again.
	// +checklocks:mu
	addresses map[string]*mesh.Node
	// certified says when each node got its certificate.
	// +checklocks:mu
	certified map[string]time.Time
	// etcd are the mesh's own members of etcd, and etcdCertified is when they got their certificates.
	// +checklocks:mu
	etcd []etcdMember
	// +checklocks:mu
	etcdCertified time.Time
	// partition are the groups of stores that can't reach each other, as they were asked for; empty: none.
	// +checklocks:mu
	partition [][]string
	// uncut is true while some store may not be cut off as it should be.
	// +checklocks:mu
	uncut bool
	// +checklocks:mu
	ready bool
}

// node is what runs for one node.
type node struct {
	mesh.Node
	envoy, store *supervise.Process
	// services has the replicas that we started, by workload.
	services map[string]*supervise.Process
}

// New takes the data directory and checks what can be checked before anything starts. Close must be called.
func New(opts Options) (*Mesh, error) {
	if err := opts.Etcd.check(); err != nil {
		return nil, err
	}
	paths, err := Locate(opts.DataDir)
	if err != nil {
		return nil, err
	}
	p, err := newPorts(opts.PortBase, opts.Nodes)
	if err != nil {
		return nil, err
	}
	file, err := filepath.Abs(opts.File)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	opts.File = file
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	config, err := v1alpha1.Parse(opts.File, source)
	if err != nil {
		return nil, err
	}
	if config.Mesh == nil {
		return nil, fmt.Errorf("%s has no LocalMesh document: add one that lists the commands (or addresses) of your services", opts.File)
	}
	// Before anything is put into it.
	if _, err := paths.marked(); err != nil {
		return nil, err
	}
	lock, made, err := paths.lock()
	if err != nil {
		return nil, err
	}
	// The folder may have been a new one when it was located: now its links can be followed.
	if paths, err = Locate(opts.DataDir); err != nil {
		lock.Close()
		return nil, err
	}
	m := &Mesh{
		opts: opts, paths: paths, ports: p, dir: filepath.Dir(file), lock: lock,
		single: map[string]*supervise.Process{}, addresses: map[string]*mesh.Node{}, certified: map[string]time.Time{},
	}
	m.config.Store(config)
	m.source = source
	m.life, m.end = context.WithCancel(context.Background())
	if err := m.prepare(); err != nil {
		if made && !m.marked {
			m.paths.forget()
		}
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Mesh) prepare() error {
	if err := m.ports.checkIngress(0, "the gateway"); err != nil {
		return err
	}
	for i := 1; i <= m.opts.Nodes; i++ {
		if err := m.ports.checkIngress(i, nodeName(i)+"'s ingress"); err != nil {
			return err
		}
	}
	if err := m.claimData(); err != nil {
		return err
	}
	if err := m.paths.prepare(); err != nil {
		return err
	}
	m.claimed = true
	if err := replaceFile(m.paths.GossipKey(), m.opts.NewGossipKey()); err != nil {
		return fmt.Errorf("gossip key: %w", err)
	}
	if err := m.newAuthority(time.Now()); err != nil {
		return err
	}
	sup, err := supervise.New(m.opts.Logger, []string{m.opts.Executable, "guard"})
	if err != nil {
		return err
	}
	m.sup = sup
	if m.api, err = serveAPI(m); err != nil {
		return err
	}
	m.page, err = servePage(m)
	return err
}

// claimData makes the folder our data directory, if it is not one yet. Only in one that was is there data to reset.
func (m *Mesh) claimData() (err error) {
	if m.marked, err = m.paths.marked(); err != nil {
		return err
	}
	if m.marked && m.opts.Reset {
		return m.paths.reset()
	}
	if !m.marked {
		err = m.paths.mark()
		m.marked = err == nil
	}
	return err
}

// Start starts everything. An error says what is wrong and what to do; the caller then calls Close.
func (m *Mesh) Start(ctx context.Context) error {
	m.change.Lock()
	defer m.change.Unlock()

	if err := m.layOut(); err != nil {
		return err
	}
	if err := m.writeTopology(); err != nil {
		return err
	}
	m.mu.Lock()
	nodes := append([]*node(nil), m.nodes...)
	m.mu.Unlock()

	// 1. What needs nobody. The services' readiness is waited for later: they may take long.
	etcd, err := m.startEtcd()
	if err != nil {
		return err
	}
	services, err := m.startWorkloads(nodes)
	if err != nil {
		return err
	}
	if err := m.waitAll(ctx, etcd...); err != nil {
		return err
	}

	// 2. The control plane and the stores, which it configures once it has the services' descriptors.
	cp, err := m.run(controlPlaneName, m.controlPlaneSpec())
	if err != nil {
		return err
	}
	var stores []*supervise.Process
	for _, n := range nodes {
		if err := m.startStore(n); err != nil {
			return err
		}
		stores = append(stores, n.store)
	}
	if err := m.waitAll(ctx, append(services, cp)...); err != nil {
		return err
	}
	if err := m.waitConfigured(ctx, stores...); err != nil {
		return err
	}

	// 3. The Envoys.
	gateway, err := m.run(gatewayName, m.gatewaySpec())
	if err != nil {
		return err
	}
	third := []*supervise.Process{gateway}
	for _, n := range nodes {
		if err := m.startEnvoy(n); err != nil {
			return err
		}
		third = append(third, n.envoy)
	}
	if err := m.waitConfigured(ctx, third...); err != nil {
		return err
	}
	if err := m.waitProgrammed(ctx, len(third)); err != nil {
		return err
	}
	m.mu.Lock()
	m.ready = true
	m.mu.Unlock()
	m.followed.Go(func() { m.follow(m.life, m.source) })
	m.followed.Go(func() { m.keep(m.life) })
	return nil
}

// run starts a process that is there once.
func (m *Mesh) run(name string, spec supervise.Spec) (*supervise.Process, error) {
	p, err := m.sup.Run(spec)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.single[name] = p
	return p, nil
}

func (m *Mesh) gatewaySpec() supervise.Spec {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.envoySpec(gatewayName, gatewayName, m.topology.Gateway.AdminSocket, m.topology.Gateway.Address)
}

// startWorkloads starts the gateway's workloads and every node's replicas.
func (m *Mesh) startWorkloads(nodes []*node) ([]*supervise.Process, error) {
	var all []*supervise.Process
	for _, w := range m.workloads(v1alpha1.ScopeGateway) {
		m.mu.Lock()
		address := m.topology.GatewayWorkloads[w.Name]
		m.mu.Unlock()
		if w.Address != "" {
			m.checkExternal(w)
			continue
		}
		p, err := m.run(gatewayName+"/"+w.Name, m.workloadSpec(w, gatewayName, address))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	for _, w := range m.workloads(v1alpha1.ScopeNode) {
		if w.Address != "" {
			m.checkExternal(w)
		}
	}
	for _, n := range nodes {
		started, err := m.startServices(n)
		if err != nil {
			return nil, err
		}
		all = append(all, started...)
	}
	return all, nil
}

// checkExternal warns of a service that should run already and does not.
func (m *Mesh) checkExternal(w *v1alpha1.Workload) {
	if err := Listens(context.Background(), w.Address); err != nil {
		m.progress("warning: workload %s: %v: start your service, calls to it fail until then", w.Name, err)
	}
}

func (m *Mesh) startServices(n *node) ([]*supervise.Process, error) {
	var started []*supervise.Process
	for _, w := range m.workloads(v1alpha1.ScopeNode) {
		if w.Address != "" {
			continue
		}
		p, err := m.sup.Run(m.workloadSpec(w, n.Name, n.Services[w.Name]))
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		n.services[w.Name] = p
		m.mu.Unlock()
		started = append(started, p)
	}
	return started, nil
}

func (m *Mesh) startStore(n *node) error {
	p, err := m.sup.Run(m.storeSpec(&n.Node))
	m.mu.Lock()
	defer m.mu.Unlock()
	n.store = p
	return err
}

func (m *Mesh) startEnvoy(n *node) error {
	p, err := m.sup.Run(m.envoySpec(n.Name+"/envoy", n.Name, n.AdminSocket, n.Ingress))
	m.mu.Lock()
	defer m.mu.Unlock()
	n.envoy = p
	return err
}

func (m *Mesh) progress(format string, args ...any) {
	if m.opts.Progress != nil {
		m.opts.Progress(fmt.Sprintf(format, args...))
	}
}
