package localmesh

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// The test binary plays every program that a mesh starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch role := os.Args[1]; role {
		case "guard":
			supervise.Guard(os.Stdin)
			return
		case "etcd", "controlplane", "store", "service", "-c":
			play(role)
			return
		case "up":
			playUp()
			return
		}
	}
	// Under the race detector a process sleeps a second before it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// play listens where the real program would, says so in the journal and waits for SIGTERM.
func play(role string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	flags := map[string]string{}
	for i := 2; i+1 < len(os.Args); i += 2 {
		flags[os.Args[i]] = os.Args[i+1]
	}
	var name, socket, tcp string
	switch run := flags["--run-dir"]; role {
	case "etcd":
		name, socket = cmp.Or(flags["--name"], role), flags["--http"]
	case "controlplane":
		name, socket = role, filepath.Join(run, "admin.sock")
	case "store":
		name, socket = flags["--node"]+"/store", filepath.Join(run, flags["--node"], "store-http.sock")
		_ = os.WriteFile(filepath.Join(run, flags["--node"], "store.sock"), nil, 0o600)
	case "service":
		name, tcp = os.Getenv("HOLDFAST_NODE")+"/"+cmp.Or(os.Getenv("SERVICE"), "service"), net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT"))
	case "-c": // Envoy
		dir := filepath.Dir(os.Args[2])
		name, socket = filepath.Base(dir)+"/envoy", filepath.Join(dir, "envoy-admin.sock")
		t, err := mesh.Read(filepath.Join(filepath.Dir(dir), "mesh.json"))
		if err != nil {
			panic(err)
		}
		tcp = t.Gateway.Address
		for _, n := range t.Nodes {
			if n.Name == filepath.Base(dir) {
				tcp = n.Ingress
			}
		}
	}
	journal("start " + name)
	for network, address := range map[string]string{"unix": socket, "tcp": tcp} {
		if address == "" {
			continue
		}
		if network == "unix" {
			os.Remove(address)
		}
		l, err := net.Listen(network, address)
		if err != nil {
			panic(err)
		}
		go func() {
			_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/v1/config":
					fmt.Fprint(w, `{}`)
				case "/v1/proxies":
					// All Envoys of the topology, and all have what they need.
					t, err := mesh.Read(filepath.Join(flags["--run-dir"], "mesh.json"))
					if err != nil {
						panic(err)
					}
					list := ProxyList{Proxies: []Proxy{{Name: "gateway", Connected: true}}}
					for _, n := range t.Nodes {
						list.Proxies = append(list.Proxies, Proxy{Name: n.Name, Connected: true})
					}
					_ = json.NewEncoder(w).Encode(list)
				case "/v1/cut", "/v1/gossip":
					playStore(w, r, flags["--run-dir"], flags["--node"])
				}
			}))
		}()
	}
	<-ctx.Done()
	journal("stop " + name)
}

// playStore is what a store answers about faults and keys. It takes changed keys at once.
func playStore(w http.ResponseWriter, r *http.Request, run, node string) {
	paths := Paths{Run: run}
	switch {
	case r.URL.Path == "/v1/gossip":
		file, err := os.ReadFile(paths.GossipKey())
		if err != nil {
			panic(err)
		}
		keys := Fingerprints(file)
		journal("keys " + node + " " + strings.Join(keys, ","))
		_ = json.NewEncoder(w).Encode(GossipKeys{keys})
	case r.Method == http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(paths.Cut(node), data, 0o600)
		}
		if err != nil {
			panic(err)
		}
		_, _ = w.Write([]byte("{}"))
	default:
		data, err := os.ReadFile(paths.Cut(node))
		if err != nil {
			data = []byte(`{"nodes":[]}`)
		}
		_, _ = w.Write(data)
	}
}

func journal(line string) {
	f, err := os.OpenFile(os.Getenv("JOURNAL"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(f, line)
	f.Close()
}

// playUp starts a mesh, prints its status and waits to be killed.
func playUp() {
	m, err := New(testOptions(os.Getenv("DATA"), 1, atoi(os.Getenv("BASE"))))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := m.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	_ = json.NewEncoder(os.Stdout).Encode(m.Status())
	select {}
}

func atoi(s string) (n int) { _, _ = fmt.Sscan(s, &n); return n }

// writeConfig writes a mesh with a page and these services.
func writeConfig(dir string, services ...string) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	text := "apiVersion: holdfast.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: test}\nspec:\n  workloads:\n"
	text += fmt.Sprintf("  - {name: page, command: [%q, service], scope: gateway, route: {prefix: /}}\n", self)
	for _, name := range services {
		text += fmt.Sprintf("  - {name: %q, command: [%q, service], env: {SERVICE: %q}}\n", name, self, name)
	}
	if err := os.WriteFile(filepath.Join(dir, "holdfast.yaml"), []byte(text), 0o600); err != nil {
		panic(err)
	}
}

// testOptions are those of a mesh with its configuration in dir and its data in dir/data.
func testOptions(dir string, nodes, base int) Options {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	writeConfig(dir, "service")
	return Options{
		File: filepath.Join(dir, "holdfast.yaml"), Nodes: nodes, PortBase: base, DataDir: filepath.Join(dir, "data"),
		Executable: self, Envoy: self, ModuleDir: dir, Logger: slog.New(slog.DiscardHandler),
		NewGossipKey: func() []byte { return []byte(rand.Text() + "\n") },
	}
}

// testBase finds a port base whose first ports are free.
func testBase(t *testing.T) int {
	t.Helper()
	for base := 23200; base < 23900; base += 10 {
		free := true
		for i := range 8 {
			free = free && checkFree(address(base+i)) == nil
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

func startMesh(t *testing.T, nodes int) (*Mesh, func() []string) {
	t.Helper()
	data := t.TempDir()
	path := filepath.Join(data, "journal")
	t.Setenv("JOURNAL", path)
	m, err := New(testOptions(data, nodes, testBase(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m, func() []string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
}

// before checks that every line with one of the first suffixes stands before every line with one of the second.
func before(t *testing.T, lines, first, second []string) {
	t.Helper()
	for _, a := range first {
		for _, b := range second {
			if i, j := slices.Index(lines, a), slices.Index(lines, b); i < 0 || j < 0 || i > j {
				t.Errorf("want %q before %q in %q", a, b, lines)
			}
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !until(t.Context(), 20*time.Second, func(context.Context) bool { return ok() }) {
		t.Fatalf("after 20s: still not %s", what)
	}
}

func TestStartAndStopOrder(t *testing.T) {
	m, journal := startMesh(t, 2)
	s := m.Status()
	if !s.Ready || len(s.Nodes) != 2 || s.Nodes[1].Ingress != address(m.opts.PortBase+2) || s.Gateway.Address != address(m.opts.PortBase) {
		t.Errorf("got %+v", s)
	}
	envoys := []string{"gateway/envoy", "node-1/envoy", "node-2/envoy"}
	services := []string{"node-1/service", "node-2/service", "gateway/service"}
	stores := []string{"node-1/store", "node-2/store"}
	with := func(verb string, names ...string) (out []string) {
		for _, n := range names {
			out = append(out, verb+n)
		}
		return out
	}
	before(t, journal(), with("start ", "etcd"), with("start ", append(stores, "controlplane")...))
	before(t, journal(), with("start ", append(stores, "controlplane")...), with("start ", envoys...))
	m.Close()
	before(t, journal(), with("stop ", envoys...), with("stop ", services...))
	before(t, journal(), with("stop ", services...), with("stop ", stores...))
	before(t, journal(), with("stop ", stores...), with("stop ", "controlplane"))
	before(t, journal(), with("stop ", "controlplane"), with("stop ", "etcd"))
	if _, err := os.Stat(m.paths.Run); !os.IsNotExist(err) {
		t.Errorf("run folder is still there: %v", err)
	}
}

func TestEtcdOfThreeMembers(t *testing.T) {
	data := t.TempDir()
	t.Setenv("JOURNAL", filepath.Join(data, "journal"))
	opts := testOptions(data, 1, testBase(t))
	opts.Etcd.Members = 3
	start := func() (status *Status, topology *mesh.Topology, members []etcdMember) {
		t.Helper()
		m, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if topology, err = mesh.Read(m.paths.Topology()); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{topology.EtcdAccess.CA, topology.EtcdAccess.Cert, m.paths.etcdFile("etcd-3")} {
			if _, err := os.Stat(file); err != nil {
				t.Error(err)
			}
		}
		return m.Status(), topology, m.etcd
	}
	s, topology, members := start()
	if len(s.EtcdMembers) != 3 || s.EtcdMembers["etcd-2"].PID == 0 || s.Etcd != s.EtcdMembers["etcd-1"] || len(s.EtcdProcesses()) != 3 {
		t.Errorf("status: %+v, %+v", s.Etcd, s.EtcdMembers)
	}
	if len(topology.Etcd) != 3 || !strings.HasPrefix(topology.Etcd[0], "https://") || topology.EtcdAccess.External {
		t.Errorf("topology: %v, %+v", topology.Etcd, topology.EtcdAccess)
	}
	// The members know each other by these.
	_, topology, again := start()
	for i := range members {
		if members[i].Peer != again[i].Peer || slices.Contains(topology.Etcd, members[i].Peer) {
			t.Errorf("%s is at %s, was at %s; clients' addresses: %v", again[i].Name, again[i].Peer, members[i].Peer, topology.Etcd)
		}
	}
	opts.Etcd.Members = 1
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "--etcd-members 3") {
		t.Errorf("one member on the data of three: %v", err)
	}
}

func TestEtcdOptions(t *testing.T) {
	for name, o := range map[string]EtcdOptions{
		"two members":             {Members: 2},
		"negative quota":          {QuotaBytes: -1},
		"endpoints and members":   {Members: 3, Endpoints: []string{"http://127.0.0.1:1"}},
		"endpoints and a quota":   {QuotaBytes: 1, Endpoints: []string{"http://127.0.0.1:1"}},
		"access, but no endpoint": {Access: mesh.EtcdAccess{User: "x"}},
	} {
		if o.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	opts := testOptions(t.TempDir(), 1, testBase(t))
	t.Setenv("JOURNAL", filepath.Join(t.TempDir(), "journal"))
	opts.Etcd.Endpoints = []string{"http://127.0.0.1:1"}
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	topology, err := mesh.Read(m.paths.Topology())
	if err != nil || len(topology.Etcd) != 1 || !topology.EtcdAccess.External || m.Status().Etcd.State != External {
		t.Errorf("topology: %+v, %v; status: %+v", topology, err, m.Status().Etcd)
	}
}

func TestRestartsAKilledStore(t *testing.T) {
	m, _ := startMesh(t, 1)
	first := m.Status().Nodes[0].StorePID
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restarted", func() bool {
		p := m.Status().Nodes[0].Processes["store"]
		return p.State == "ready" && p.PID != first && p.Restarts > 0
	})
}

func TestScale(t *testing.T) {
	m, journal := startMesh(t, 1)
	client := Client{Paths: m.paths}
	if _, err := client.Scale(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	topology := func() []string {
		top, err := mesh.Read(m.paths.Topology())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, n := range top.Nodes {
			names = append(names, n.Name+" "+n.Gossip)
		}
		return names
	}
	three := topology()
	if len(three) != 3 {
		t.Fatalf("got %q", three)
	}
	before(t, journal(), []string{"start node-3/store", "start node-3/service"}, []string{"start node-3/envoy"})
	s, err := client.Scale(t.Context(), 1)
	if err != nil || len(s.Nodes) != 1 || len(topology()) != 1 {
		t.Fatalf("got %+v, %v, %q", s, err, topology())
	}
	before(t, journal(), []string{"stop node-2/envoy"}, []string{"stop node-2/service"})
	before(t, journal(), []string{"stop node-2/service"}, []string{"stop node-2/store"})
	if _, err := client.Scale(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if got := topology(); !slices.Equal(got, three) {
		t.Errorf("after coming back: got %q, want the same addresses %q", got, three)
	}
	if _, err := client.Scale(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "between 1 and") {
		t.Errorf("scale 0: got %v", err)
	}
}

func TestFollowsTheConfiguration(t *testing.T) {
	m, journal := startMesh(t, 2)
	topology := func() map[string]string {
		top, err := mesh.Read(m.paths.Topology())
		if err != nil {
			t.Fatal(err)
		}
		return top.Nodes[1].Services
	}
	had := topology()["service"]
	writeConfig(m.dir, "service", "second")
	eventually(t, "a second service", func() bool { return topology()["second"] != "" && len(m.Status().Nodes[0].ServicePIDs) == 2 })
	if got := topology()["service"]; got != had || slices.Contains(journal(), "stop node-2/service") {
		t.Errorf("the first service was disturbed: %s, was %s; %q", got, had, journal())
	}
	if err := os.WriteFile(m.opts.File, []byte("nonsense: true"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeConfig(m.dir, "second")
	eventually(t, "rid of the first service", func() bool { return slices.Contains(journal(), "stop node-2/service") })
	if got := topology(); got["service"] != "" || got["second"] == "" || slices.Contains(journal(), "stop node-2/second") {
		t.Errorf("got %v, %q", got, journal())
	}
}

func TestBehind(t *testing.T) {
	proxy := func(name, state string) Proxy {
		return Proxy{Name: name, Connected: true, Types: []ProxyType{{Type: "LDS", State: Acked}, {Type: "ECDS", State: state, Error: "why"}}}
	}
	for _, c := range []struct {
		list ProxyList
		want string
		nack bool
	}{
		{ProxyList{}, "0 of 2 Envoys are connected", false},
		{ProxyList{Proxies: []Proxy{proxy("a", Acked), {Name: "gone"}}}, "1 of 2 Envoys are connected", false},
		{ProxyList{Proxies: []Proxy{proxy("a", Acked), proxy("b", "PENDING")}}, "b, ECDS: PENDING", false},
		{ProxyList{Proxies: []Proxy{proxy("a", "PENDING"), proxy("b", nacked)}}, "b, ECDS: why", true},
		{ProxyList{Proxies: []Proxy{proxy("a", Acked), proxy("b", Acked)}}, "", false},
	} {
		if what, nack := c.list.behind(2); what != c.want || (nack != nil) != c.nack {
			t.Errorf("%+v: got %q, %v; want %q", c.list, what, nack, c.want)
		}
	}
}

func TestPortTaken(t *testing.T) {
	base := testBase(t)
	l, err := net.Listen("tcp", address(base+1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New(testOptions(t.TempDir(), 2, base))
	want := fmt.Sprintf("port %d (node-1's ingress) is taken by pid %d (", base+1, os.Getpid())
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--port-base") {
		t.Errorf("got %v, want %q and the remedy", err, want)
	}
}

func TestDataDirectoryInUse(t *testing.T) {
	m, _ := startMesh(t, 1)
	_, err := New(testOptions(m.dir, 1, m.opts.PortBase))
	if want := fmt.Sprintf("is in use by holdfast with pid %d", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if s, err := (Client{Paths: m.paths}).Status(t.Context()); err != nil || !s.Ready {
		t.Errorf("the first mesh was disturbed: %+v, %v", s, err)
	}
}

func TestForeignRunFolderIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	options := testOptions(dir, 1, testBase(t))
	paths, err := Locate(options.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths.Run, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(paths.Run) })
	if _, err := New(options); err == nil || !strings.Contains(err.Error(), "is not this user's") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(paths.Run); err != nil {
		t.Errorf("it was removed: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	paths, err := Locate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Client{Paths: paths}).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
}

// A mesh whose supervisor is killed with SIGKILL leaves no process behind.
func TestKilledUpLeavesNothing(t *testing.T) {
	data := t.TempDir()
	cmd := exec.Command(os.Args[0], "up")
	cmd.Env = append(os.Environ(), "DATA="+data, fmt.Sprint("BASE=", testBase(t)), "JOURNAL="+filepath.Join(data, "journal"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var s Status
	if err := json.Unmarshal(line, &s); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	t.Cleanup(func() { os.RemoveAll(s.RunDir) })
	pids := []int{s.Etcd.PID, s.ControlPlane.PID, s.Gateway.EnvoyPID, s.Gateway.ServicePIDs["page"], s.Nodes[0].EnvoyPID, s.Nodes[0].StorePID, s.Nodes[0].ServicePIDs["service"]}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, pid := range pids {
		if pid == 0 {
			t.Fatalf("not everything ran: %s", line)
		}
		eventually(t, "gone", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
}

func TestConfigurationTroubles(t *testing.T) {
	c := Configuration{Services: []ConfiguredService{
		{Name: "well", Service: "a.v1.Well", State: "ok"},
		{Name: "stock", Service: "shop.v1.Stock", State: "stale", Error: "no request has a field skuu"},
	}}
	got := c.Troubles()
	if want := "stock (shop.v1.Stock) is stale: no request has a field skuu"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
