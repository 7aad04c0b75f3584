package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// role makes the test binary play another program: the guard, or a parent that is killed.
const role = "HOLDFAST_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "guard":
		Guard(os.Stdin)
		return
	case "parent":
		parent()
		return
	}
	os.Exit(m.Run())
}

// parent starts a process that has a child of its own in the background, prints both pids and sleeps until it is killed.
func parent() {
	s, err := New(slog.New(slog.DiscardHandler), guardCommand())
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := s.Run(Spec{
		Name: "family", Log: os.Getenv("LOG"), ReadyTimeout: 10 * time.Second,
		Command: []string{"sh", "-c", `sleep 300 & echo $! > "$PIDS"; wait`},
		Ready:   func(context.Context) error { _, err := readPID(os.Getenv("PIDS")); return err },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := p.WaitReady(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	grandchild, _ := readPID(os.Getenv("PIDS"))
	fmt.Println(p.Status().PID, grandchild)
	select {}
}

func guardCommand() []string {
	return []string{"/usr/bin/env", role + "=guard", os.Args[0]}
}

func readPID(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

func newTestSupervisor(t *testing.T) *Supervisor {
	t.Helper()
	s, err := New(slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// eventually polls ok until it is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10s: still not %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	// An orphan without a reaper stays as a zombie: it is dead all the same.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestRestartsWhatDies(t *testing.T) {
	s := newTestSupervisor(t)
	p, err := s.Run(Spec{Name: "x", Command: []string{"sleep", "300"}, Log: filepath.Join(t.TempDir(), "log"), StopTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := p.Status().PID
	_ = syscall.Kill(first, syscall.SIGKILL)
	eventually(t, "restarted", func() bool { st := p.Status(); return st.State == Ready && st.PID != first })
	st := p.Status()
	if st.Restarts != 1 || !strings.Contains(st.LastExit, "killed") {
		t.Errorf("got restarts %d, last exit %q; want 1, killed", st.Restarts, st.LastExit)
	}
	p.Stop()
	if !gone(st.PID) || p.Status().State != Stopped {
		t.Errorf("after Stop: pid %d gone %v, state %s", st.PID, gone(st.PID), p.Status().State)
	}
}

func TestReadyOnlyWhenItAnswers(t *testing.T) {
	s := newTestSupervisor(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	p, err := s.Run(Spec{
		Name: "x", Command: []string{"sleep", "300"}, Log: filepath.Join(dir, "log"), StopTimeout: time.Second, ReadyTimeout: 10 * time.Second,
		Ready: func(ctx context.Context) error {
			c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
			if err == nil {
				c.Close()
			}
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.WaitReady(short); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("before it listens: got %v, want the last error of Ready", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := p.WaitReady(t.Context()); err != nil {
		t.Errorf("once it listens: got %v", err)
	}
}

func TestSaysWhyItCannotStart(t *testing.T) {
	dir := t.TempDir()
	listening := func(context.Context) error { return errors.New("nothing listens at 127.0.0.1:1") }
	for _, c := range []struct {
		name string
		spec Spec
		want []string
	}{
		{"unknown command", Spec{Command: []string{"no-such-command-here"}}, []string{`command "no-such-command-here" not found in PATH`}},
		{"missing file", Spec{Command: []string{"./bin/none"}, Dir: dir}, []string{`"./bin/none": no such file (is it built?)`}},
		{"dies", Spec{
			Command: []string{"sh", "-c", "echo boom >&2; exit 3"}, Ready: listening,
			Explain: func(tail string) string { return "advice about " + tail },
		}, []string{"exit status 3", "advice about boom", "The end of its log", "\n  boom"}},
		{
			"never listens",
			Spec{Command: []string{"sleep", "300"}, Ready: listening, ReadyTimeout: 50 * time.Millisecond},
			[]string{"not ready after 50ms: nothing listens at 127.0.0.1:1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTestSupervisor(t)
			c.spec.Name, c.spec.Log, c.spec.StopTimeout = "x", filepath.Join(t.TempDir(), "log"), time.Second
			p, err := s.Run(c.spec)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop()
			err = p.WaitReady(t.Context())
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
		})
	}
}

func TestStopKillsWhatIgnoresTERM(t *testing.T) {
	s := newTestSupervisor(t)
	dir := t.TempDir()
	up := filepath.Join(dir, "up")
	p, err := s.Run(Spec{
		Name: "x", Log: filepath.Join(dir, "log"), StopTimeout: 50 * time.Millisecond, Env: []string{"UP=" + up},
		Command: []string{"sh", "-c", `trap "" TERM; : > "$UP"; while :; do sleep 0.05; done`},
		Ready:   func(context.Context) error { _, err := os.Stat(up); return err }, ReadyTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := p.Status().PID
	p.Stop()
	if !gone(pid) {
		t.Errorf("pid %d is still there", pid)
	}
}

// A parent that is killed with SIGKILL leaves neither its child nor its child's child.
func TestKilledParentLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"=parent", "LOG="+filepath.Join(dir, "log"), "PIDS="+filepath.Join(dir, "pids"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var child, grandchild int
	if _, err := fmt.Sscan(line, &child, &grandchild); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
	if gone(child) || gone(grandchild) {
		t.Fatalf("child %d or grandchild %d did not run", child, grandchild)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "gone", func() bool { return gone(child) && gone(grandchild) })
}

func TestLogIsMovedAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, make([]byte, maxLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("got %v, %v; want an empty log", info.Size(), err)
	}
	if _, err := os.Stat(path + ".1"); err != nil {
		t.Error(err)
	}
}
