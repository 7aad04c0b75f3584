package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Spec says how to run one process.
type Spec struct {
	// Name is unique among the supervisor's processes, for example "node-1/store".
	Name string
	// Command is the program and its arguments.
	Command []string
	// Dir is the working directory; empty means this process's.
	Dir string
	// Env is added to this process's environment.
	Env []string
	// Log is the file that standard output and error are appended to.
	Log string
	// Prepare, if not nil, runs before each start, for example to remove an old socket.
	Prepare func() error
	// Ready says whether the process answers, nil for yes; nil itself means that running is enough. It is polled, so
	// it must return soon. Its last error explains a process that never became ready.
	Ready func(context.Context) error
	// ReadyTimeout bounds the wait for Ready.
	ReadyTimeout time.Duration
	// StopTimeout is the time between SIGTERM and SIGKILL.
	StopTimeout time.Duration
	// Explain, if not nil, turns the end of the log of a process that would not start into what the user should do.
	Explain func(tail string) string
}

// State is where a process is in its life.
type State string

// The states.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Down     State = "down"
	Stopped  State = "stopped"
)

// Status is what can be said about a process at one moment.
type Status struct {
	// PID is 0 while it does not run.
	PID      int
	State    State
	Restarts int
	// LastExit says how it ended last; empty if it never did.
	LastExit string
}

// Process is one supervised process.
type Process struct {
	sup     *Supervisor
	spec    Spec
	started time.Time

	stop    chan struct{}
	stopped chan struct{}
	// firstReady is closed when the process was ready for the first time, failed when it never will be.
	firstReady, failed chan struct{}
	stopOnce           sync.Once

	// mu guards what follows.
	mu sync.Mutex
	// +checklocks:mu
	status Status
	// +checklocks:mu
	readyErr error
	// failure is why the process can't start. Set before failed is closed.
	// +checklocks:mu
	failure error
}

func newProcess(s *Supervisor, spec Spec) *Process {
	return &Process{
		sup: s, spec: spec, started: time.Now(), status: Status{State: Starting},
		stop: make(chan struct{}), stopped: make(chan struct{}),
		firstReady: make(chan struct{}), failed: make(chan struct{}),
	}
}

// Name is the process's name.
func (p *Process) Name() string { return p.spec.Name }

// Started is when Run was called for it.
func (p *Process) Started() time.Time { return p.started }

// Status returns what the process does now.
func (p *Process) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// run starts the process, over and over, until stop is closed.
func (p *Process) run() {
	defer close(p.stopped)
	backoff := backoffMin
	deaths := 0
	for {
		started := time.Now()
		exit, logStart, err := p.once()
		if err != nil {
			exit = err.Error()
		}
		if p.stopping() {
			p.set(func(s *Status) { s.PID, s.State, s.LastExit = 0, Stopped, exit })
			return
		}
		deaths++
		p.set(func(s *Status) { s.PID, s.State, s.LastExit = 0, Down, exit; s.Restarts++ })
		if !isClosed(p.firstReady) && (deaths >= firstDeaths || err != nil) {
			p.fail(p.explain(exit, logStart))
		}
		p.sup.log.Warn("process ended", slog.String("process", p.spec.Name), slog.String("exit", exit))
		if time.Since(started) >= steadyAfter {
			backoff = backoffMin
		}
		select {
		case <-p.stop:
			p.set(func(s *Status) { s.State = Stopped })
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, backoffMax)
	}
}

// once runs the process until it ends and returns how it did. An error means that it could not be started at all.
func (p *Process) once() (exit string, logStart int64, err error) {
	if p.spec.Prepare != nil {
		if err := p.spec.Prepare(); err != nil {
			return "", 0, err
		}
	}
	out, err := openLog(p.spec.Log)
	if err != nil {
		return "", 0, err
	}
	defer out.Close()
	if info, err := out.Stat(); err == nil {
		logStart = info.Size()
	}
	cmd := exec.Command(p.spec.Command[0], p.spec.Command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.spec.Dir, out, out
	cmd.Env = append(os.Environ(), p.spec.Env...)
	if err := p.sup.spawn(cmd); err != nil {
		return "", logStart, notStarted(p.spec.Command[0], err)
	}
	pid := cmd.Process.Pid
	p.set(func(s *Status) { s.PID, s.State = pid, Starting })
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watchReady(ended, logStart)
	}()
	killer := make(chan struct{})
	go func() {
		defer close(killer)
		p.killOnStop(pid, ended)
	}()
	_ = cmd.Wait()
	close(ended)
	<-watched
	<-killer
	p.sup.reap(pid)
	return cmd.ProcessState.String(), logStart, nil
}

// watchReady polls Ready until the process is ready or ended.
func (p *Process) watchReady(ended <-chan struct{}, logStart int64) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	deadline := time.Now().Add(p.spec.ReadyTimeout)
	tick := time.NewTicker(pollReady)
	defer tick.Stop()
	for {
		err := error(nil)
		if p.spec.Ready != nil {
			err = p.spec.Ready(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		p.readyErr = err
		if err == nil {
			p.status.State = Ready
		}
		p.mu.Unlock()
		if err == nil {
			if !isClosed(p.firstReady) {
				close(p.firstReady)
			}
			return
		}
		if p.spec.ReadyTimeout > 0 && time.Now().After(deadline) && !isClosed(p.firstReady) {
			p.fail(p.explain(fmt.Sprintf("not ready after %v: %v", p.spec.ReadyTimeout, err), logStart))
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// killOnStop ends the process when it is to stop: SIGTERM to its group, SIGKILL after StopTimeout.
func (p *Process) killOnStop(pid int, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-p.stop:
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(p.spec.StopTimeout):
		p.sup.log.Warn("process does not stop, killing it", slog.String("process", p.spec.Name), slog.Int("pid", pid))
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// WaitReady waits until the process was ready once. The error says what is wrong and what to do.
func (p *Process) WaitReady(ctx context.Context) error {
	select {
	case <-p.firstReady:
		return nil
	default:
	}
	select {
	case <-p.firstReady:
		return nil
	case <-p.failed:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.failure
	case <-p.stopped:
		return fmt.Errorf("%s: stopped", p.spec.Name)
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.readyErr != nil {
			return fmt.Errorf("%s is not ready: %w", p.spec.Name, p.readyErr)
		}
		return fmt.Errorf("%s is not ready: %w", p.spec.Name, ctx.Err())
	}
}

// Clean says whether the process ended without an error, last.
func (s Status) Clean() bool { return s.LastExit == "exit status 0" }

// Stop ends the process for good, bounded by its StopTimeout, and waits for it.
func (p *Process) Stop() {
	p.stopOnce.Do(func() { close(p.stop) })
	<-p.stopped
	p.sup.forget(p)
}

func (p *Process) stopping() bool { return isClosed(p.stop) }

func (p *Process) set(change func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.status)
}

func (p *Process) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return
	}
	p.failure = err
	close(p.failed)
}

// explain makes the error of a process that would not start.
func (p *Process) explain(what string, logStart int64) error {
	tail := Tail(p.spec.Log, logStart)
	msg := fmt.Sprintf("%s: %s", p.spec.Name, what)
	if p.spec.Explain != nil {
		if advice := p.spec.Explain(tail); advice != "" {
			msg += "\n" + advice
		}
	}
	if tail != "" {
		msg += "\nThe end of its log (" + p.spec.Log + "):\n" + indent(tail)
	}
	return errors.New(msg)
}

// notStarted says why a program could not be started.
func notStarted(program string, err error) error {
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("command %q not found in PATH", program)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("command %q: no such file (is it built?)", program)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("command %q can't be executed: check its permissions", program)
	}
	return fmt.Errorf("command %q: %w", program, err)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
