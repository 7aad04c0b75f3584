// Package members runs an etcd cluster whose links a test can cut: between its members, and between each of them and each of
// its clients.
package members

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/links"
)

const (
	// startWait is how long the cluster may take to have a leader.
	startWait = 60 * time.Second
	// askTimeout ends a question to a member that may be paused.
	askTimeout = 500 * time.Millisecond
	pollEvery  = 20 * time.Millisecond
	// maxLog is how much of each member's output is kept, in bytes.
	maxLog = 256 << 10
)

// Options says what cluster to start.
type Options struct {
	Count int
	// Binary is bin/holdfast.
	Binary string
	// Links carry all of the cluster's traffic.
	Links *links.Net
	// Starting, where set, gets the cluster before its members connect to each other.
	Starting func(*Cluster)
}

// Cluster is an etcd cluster. Members are counted from 0 and named etcd-1, etcd-2, …
type Cluster struct {
	opts   Options
	folder string
	all    []*member
	http   *http.Client
}

type member struct {
	name string
	pid  atomic.Int64
	// What members and clients connect to, and where the member listens itself.
	client, peer, ownClient, ownPeer string
	cmd                              *exec.Cmd
	exited                           <-chan struct{}
	log                              tail
}

// Start starts the members and waits until they have a leader.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	folder, err := os.MkdirTemp("", "hf-etcd-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, folder: folder, http: &http.Client{Timeout: askTimeout}}
	for i := range opts.Count {
		m := &member{name: fmt.Sprintf("etcd-%d", i+1)}
		for _, a := range []*string{&m.client, &m.peer, &m.ownClient, &m.ownPeer} {
			if *a, err = freeAddress(); err != nil {
				return nil, errors.Join(err, c.Close())
			}
		}
		c.all = append(c.all, m)
	}
	if opts.Starting != nil {
		opts.Starting(c)
	}
	for i, m := range c.all {
		err := errors.Join(opts.Links.Serve(m.name, m.client, m.ownClient), opts.Links.Serve(m.name, m.peer, m.ownPeer), c.Launch(i))
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if err := rig.Poll(ctx, func() error { _, err := c.Leader(); return err }); err != nil {
		return nil, errors.Join(err, errors.New(c.Logs()), c.Close())
	}
	return c, nil
}

// Launch starts member i, for the first time or again with its data, and waits for nothing.
func (c *Cluster) Launch(i int) error {
	m := c.all[i]
	var initial []string
	for _, o := range c.all {
		initial = append(initial, o.name+"=http://"+o.peer)
	}
	cmd := exec.Command(c.opts.Binary, "etcd", "--name", m.name, "--data", filepath.Join(c.folder, m.name),
		"--client", "http://"+m.ownClient, "--advertise-client", "http://"+m.client,
		"--peer", "http://"+m.ownPeer, "--advertise-peer", "http://"+m.peer,
		"--initial-cluster", strings.Join(initial, ","))
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	exited, err := rig.StartTied(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	m.cmd, m.exited = cmd, exited
	m.pid.Store(int64(cmd.Process.Pid))
	return nil
}

// Endpoints are the URLs for clients.
func (c *Cluster) Endpoints() (urls []string) {
	for _, m := range c.all {
		urls = append(urls, "http://"+m.client)
	}
	return urls
}

// Names are the members' names, as their links have them.
func (c *Cluster) Names() (names []string) {
	for _, m := range c.all {
		names = append(names, m.name)
	}
	return names
}

// Others are the names of all members but i.
func (c *Cluster) Others(i int) (names []string) {
	for j, m := range c.all {
		if j != i {
			names = append(names, m.name)
		}
	}
	return names
}

// PIDs are the members' process ids; 0 where one was not started yet.
func (c *Cluster) PIDs() (pids []int) {
	for i := range c.all {
		pids = append(pids, c.PID(i))
	}
	return pids
}

// PID is member i's process id.
func (c *Cluster) PID(i int) int { return int(c.all[i].pid.Load()) }

// Crash is kill -9 of member i; it returns when the process is gone.
func (c *Cluster) Crash(i int) error {
	if err := c.signal(i, syscall.SIGKILL); err != nil {
		return err
	}
	<-c.all[i].exited
	return nil
}

// Pause stops member i's process until Resume.
func (c *Cluster) Pause(i int) error { return c.signal(i, syscall.SIGSTOP) }

// Resume lets a paused member go on.
func (c *Cluster) Resume(i int) error { return c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, s syscall.Signal) error {
	select {
	case <-c.all[i].exited:
		return fmt.Errorf("%s does not run", c.all[i].name)
	default:
		return c.all[i].cmd.Process.Signal(s)
	}
}

// Leader is the member that most of those who answer follow, and its term.
func (c *Cluster) Leader() (l Leader, err error) {
	return c.leader(func(int) bool { return true })
}

// LeaderOfOthers is the leader as the members other than i see it.
func (c *Cluster) LeaderOfOthers(i int) (Leader, error) {
	return c.leader(func(j int) bool { return j != i })
}

// Leader is a leader of a term, by its number among the members.
type Leader struct {
	Member int
	Term   uint64
}

func (l Leader) String() string { return fmt.Sprintf("etcd-%d in term %d", l.Member+1, l.Term) }

// leader asks the members that count, all at once. The newest term that has a leader wins.
func (c *Cluster) leader(counts func(int) bool) (Leader, error) {
	answers := make([]status, len(c.all))
	problems := make([]error, len(c.all))
	var wg sync.WaitGroup
	for i := range c.all {
		wg.Go(func() { answers[i], problems[i] = c.status(i) })
	}
	wg.Wait()
	best := Leader{Member: -1}
	for i, a := range answers {
		if problems[i] != nil || !counts(i) || a.leader == 0 || a.term <= best.Term {
			continue
		}
		for j := range answers {
			if problems[j] == nil && answers[j].member == a.leader && counts(j) {
				best = Leader{Member: j, Term: a.term}
			}
		}
	}
	if best.Member < 0 {
		return best, errors.Join(append([]error{errors.New("no leader")}, problems...)...)
	}
	return best, nil
}

type status struct {
	member, leader uint64
	term           uint64
}

// status asks member i itself, past its links.
func (c *Cluster) status(i int) (status, error) {
	resp, err := c.http.Post("http://"+c.all[i].ownClient+"/v3/maintenance/status", "application/json", strings.NewReader("{}"))
	if err != nil {
		return status{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return status{}, err
	}
	var s struct {
		Header struct {
			Member string `json:"member_id"`
		} `json:"header"`
		Leader string `json:"leader"`
		Term   string `json:"raftTerm"`
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return status{}, fmt.Errorf("status of %s: %w in %s", c.all[i].name, err, body)
	}
	out := status{}
	out.member, _ = strconv.ParseUint(s.Header.Member, 10, 64)
	out.leader, _ = strconv.ParseUint(s.Leader, 10, 64)
	out.term, _ = strconv.ParseUint(s.Term, 10, 64)
	return out, nil
}

// List reads all keys with a prefix past all links, linearizably.
func (c *Cluster) List(ctx context.Context, prefix string) (map[string]string, error) {
	end := []byte(prefix)
	end[len(end)-1]++
	body, err := json.Marshal(map[string][]byte{"key": []byte(prefix), "range_end": end})
	if err != nil {
		return nil, err
	}
	var problem error
	for _, m := range c.all {
		found, err := c.list(ctx, m, body)
		if err == nil {
			return found, nil
		}
		problem = errors.Join(problem, err)
	}
	return nil, problem
}

func (c *Cluster) list(ctx context.Context, m *member, body []byte) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.ownClient+"/v3/kv/range", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", m.name, resp.Status)
	}
	var answer struct {
		KVs []struct {
			Key   []byte `json:"key"`
			Value []byte `json:"value"`
		} `json:"kvs"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	found := map[string]string{}
	for _, kv := range answer.KVs {
		found[string(kv.Key)] = string(kv.Value)
	}
	return found, nil
}

// Logs is the end of each member's output.
func (c *Cluster) Logs() string {
	var b strings.Builder
	for _, m := range c.all {
		fmt.Fprintf(&b, "==> %s\n%s\n", m.name, m.log.String())
	}
	return b.String()
}

// Close ends the members and removes their data. The links are the caller's.
func (c *Cluster) Close() error {
	for _, m := range c.all {
		if m.cmd != nil {
			_ = m.cmd.Process.Signal(syscall.SIGKILL)
			<-m.exited
		}
	}
	c.http.CloseIdleConnections()
	return os.RemoveAll(c.folder)
}

// freeAddress is a loopback address that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 2*maxLog {
		t.b = append([]byte(nil), t.b[len(t.b)-maxLog:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimRight(t.b, "\n"), []byte("\n"))
	if len(lines) > 20 {
		lines = lines[len(lines)-20:]
	}
	return string(bytes.Join(lines, []byte("\n")))
}
