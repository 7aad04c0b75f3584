// Package rig starts a real local mesh for a test, breaks it, and takes it down again.
//
// It runs bin/holdfast as a user would and builds nothing itself. What it knows of the mesh comes from the command line,
// from REST and gRPC calls and from the store's public API: it imports no package of the product but proto. Every mesh
// runs in a folder of its own, on ports of its own, with a mark in the environment of its processes by which they are
// found again, whoever their parent is by then.
package rig

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// markVariable names the environment variable that marks the processes of one mesh.
const markVariable = "HOLDFAST_E2E_MARK"

// Options says what mesh to start.
type Options struct {
	Nodes int
	// Config is the mesh's YAML; empty means the demo's.
	Config string
	// Copy makes a copy of the demo's configuration that the test may change (Mesh.Config is its path).
	Copy bool
	// Root is where bin/holdfast is; empty means the repository.
	Root string
	// Env is added to the environment of `holdfast up`.
	Env []string
	// Args are further arguments of `holdfast up`.
	Args []string
}

// Mesh is a mesh that `holdfast up` keeps.
type Mesh struct {
	Config string
	Data   string
	Base   int
	// ReadyIn is the time from the start of `holdfast up` until every node answered a call.
	ReadyIn time.Duration

	opts   Options
	root   string
	folder string
	mark   string
	up     *exec.Cmd
	output *lockedBuffer
	exited <-chan struct{}
	rest   *restClient
}

// Root is the repository's folder, found upwards from the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(data, []byte("module github.com/holdfast-mesh/holdfast\n")) {
			return dir, nil
		}
	}
	return "", errors.New("not inside the holdfast repository")
}

// New prepares a mesh and starts nothing.
func New(opts Options) (*Mesh, error) {
	root := opts.Root
	if root == "" {
		var err error
		if root, err = Root(); err != nil {
			return nil, err
		}
	}
	for _, need := range []string{"bin/holdfast", "bin/envoy", "lib/libholdfast.so", "examples/demo/bin/questions", "examples/demo/bin/cart"} {
		if _, err := os.Stat(filepath.Join(root, need)); err != nil {
			return nil, fmt.Errorf("%s is missing: run `make build` first (%w)", need, err)
		}
	}
	folder, err := os.MkdirTemp("", "hf-e2e-")
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		opts: opts, root: root, folder: folder, Data: filepath.Join(folder, "data"),
		mark: randomHex(8), rest: newRESTClient(), output: &lockedBuffer{},
	}
	switch {
	case opts.Config != "":
		m.Config = opts.Config
	case opts.Copy:
		if m.Config, err = shadowDemo(root, folder); err != nil {
			os.RemoveAll(folder)
			return nil, err
		}
	default:
		m.Config = filepath.Join(root, "examples/demo/holdfast.yaml")
	}
	if m.Base, err = freeBase(opts.Nodes); err != nil {
		os.RemoveAll(folder)
		return nil, err
	}
	return m, nil
}

// Start starts a mesh and waits until every node answers.
func Start(ctx context.Context, opts Options) (*Mesh, error) {
	m, err := New(opts)
	if err != nil {
		return nil, err
	}
	if err := m.Up(ctx); err != nil {
		logs := m.Logs(40)
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, logs), m.Close())
	}
	return m, nil
}

// Up starts `holdfast up` for the first time or again, with extra arguments, and waits until every node answers.
func (m *Mesh) Up(ctx context.Context, args ...string) error {
	started := time.Now()
	if err := m.Launch(args...); err != nil {
		return err
	}
	if err := m.WaitReady(ctx, m.opts.Nodes); err != nil {
		return err
	}
	m.ReadyIn = time.Since(started)
	return nil
}

// Launch starts `holdfast up` and waits for nothing.
func (m *Mesh) Launch(args ...string) error {
	line := []string{
		"up", "-f", m.Config, "--nodes", fmt.Sprint(m.opts.Nodes), "--headless",
		"--data-dir", m.Data, "--port-base", fmt.Sprint(m.Base),
	}
	cmd := exec.Command(filepath.Join(m.root, "bin/holdfast"), append(append(line, m.opts.Args...), args...)...)
	cmd.Env = append(append(os.Environ(), markVariable+"="+m.mark), m.opts.Env...)
	cmd.Dir = m.folder
	cmd.Stdout, cmd.Stderr = m.output, m.output
	exited, err := StartTied(cmd)
	if err != nil {
		return fmt.Errorf("start holdfast up: %w", err)
	}
	m.up, m.exited = cmd, exited
	return nil
}

// UpPID is the process id of `holdfast up`.
func (m *Mesh) UpPID() int { return m.up.Process.Pid }

// Exited is closed when `holdfast up` has ended.
func (m *Mesh) Exited() <-chan struct{} { return m.exited }

// ExitCode is the exit code of an `up` that has ended.
func (m *Mesh) ExitCode() int {
	<-m.exited
	return m.up.ProcessState.ExitCode()
}

// Output is what `holdfast up` has printed.
func (m *Mesh) Output() string { return m.output.String() }

// Interrupt sends what Ctrl-C sends, and waits until `up` and all its processes have ended.
func (m *Mesh) Interrupt(ctx context.Context) error {
	_ = m.up.Process.Signal(os.Interrupt)
	select {
	case <-m.exited:
	case <-ctx.Done():
		return fmt.Errorf("holdfast up has not ended after an interrupt: %w", ctx.Err())
	}
	return m.WaitGone(ctx)
}

// WaitGone waits until no process of the mesh is left.
func (m *Mesh) WaitGone(ctx context.Context) error {
	return Poll(ctx, func() error {
		if left := m.Processes(); len(left) > 0 {
			return fmt.Errorf("processes left behind: %s", describe(left))
		}
		return nil
	})
}

// Close takes the mesh down, removes its folder, and says so if a process had to be killed.
func (m *Mesh) Close() error {
	var problem error
	if m.up != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopWait)
		defer cancel()
		problem = m.Interrupt(ctx)
		if problem != nil {
			m.killAll()
			<-m.exited
		}
	}
	return errors.Join(problem, os.RemoveAll(m.folder))
}

func (m *Mesh) killAll() {
	for range 10 {
		left := m.Processes()
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		time.Sleep(pollEvery)
	}
}

// Logs is the end of what `up` printed and of each log in the data folder.
func (m *Mesh) Logs(lines int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "==> holdfast up\n%s\n", tail([]byte(m.Output()), lines))
	files, _ := filepath.Glob(filepath.Join(m.Data, "logs", "*"))
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil || len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		fmt.Fprintf(&b, "==> %s\n%s\n", filepath.Base(name), tail(data, lines))
	}
	return b.String()
}

func tail(data []byte, lines int) string {
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// Poll calls f until it returns nil or the context ends; then it returns f's last error.
func Poll(ctx context.Context, f func() error) error { return PollEvery(ctx, pollEvery, f) }

// PollEvery is Poll with another pause between two looks, where their time is part of what is measured.
func PollEvery(ctx context.Context, pause time.Duration, f func() error) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting: %w", err)
		case <-ticker.C:
		}
	}
}

// PollFor is Poll with a deadline of its own.
func PollFor(d time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return Poll(ctx, f)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

type lockedBuffer struct {
	// mu guards b: the child's output arrives on goroutines of os/exec.
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > maxOutput {
		l.b.Reset()
	}
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
