package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
)

// redraw is how often the live table looks whether something changed.
const redraw = 200 * time.Millisecond

// defaultWidth is that of a terminal which does not tell.
const defaultWidth = 80

// display shows what up does: plain lines, and on a terminal a live table below them.
type display struct {
	out  io.Writer
	live bool

	// mu guards the terminal and what is on it.
	mu sync.Mutex
	// shown is the table as it stands on the terminal, at the bottom.
	// +checklocks:mu
	shown string

	end  chan struct{}
	done sync.WaitGroup
}

func newDisplay(out io.Writer, headless bool) *display {
	return &display{out: out, live: !headless && isTerminal(out), end: make(chan struct{})}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("TERM") != "dumb"
}

// start shows the table until stop.
func (d *display) start(status func() *localmesh.Status) {
	if !d.live {
		return
	}
	d.done.Go(func() {
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for {
			d.show(renderTable(status()))
			select {
			case <-d.end:
				return
			case <-tick.C:
			}
		}
	})
}

// stop takes the table away: all that it showed has ended.
func (d *display) stop() {
	close(d.end)
	d.done.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprint(d.out, d.erase()+"stopped\n")
	d.shown = ""
}

// show replaces the table.
func (d *display) show(table string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if table = fit(table, d.width()); table == d.shown {
		return
	}
	fmt.Fprint(d.out, d.erase()+table)
	d.shown = table
}

// width is the terminal's.
func (d *display) width() int {
	if f, ok := d.out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return defaultWidth
}

// fit cuts lines that the terminal would wrap: the table could not be erased by its number of lines then.
func fit(table string, width int) string {
	lines := strings.Split(table, "\n")
	for i, l := range lines {
		l = strings.TrimRight(l, " ")
		if len(l) > width {
			l = l[:width-1] + "~"
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n")
}

// line prints a line above the table.
func (d *display) line(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live && strings.HasSuffix(line, "s)") && strings.Contains(line, " is ready (") {
		return // The table shows it.
	}
	fmt.Fprint(d.out, d.erase()+line+"\n"+d.shown)
}

// erase is what removes the table from the terminal.
// +checklocks:d.mu
func (d *display) erase() string {
	if d.shown == "" {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\x1b[J", strings.Count(d.shown, "\n"))
}

// handler makes the supervisor's log lines appear above the table.
func (d *display) handler() slog.Handler {
	return slog.NewTextHandler(lineWriter{d}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.String("at", a.Value.Time().Format(time.TimeOnly))
		}
		return a
	}})
}

type lineWriter struct{ d *display }

func (w lineWriter) Write(p []byte) (int, error) {
	w.d.line(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// renderTable draws a status: first what is there once, then one row for each node.
func renderTable(s *localmesh.Status) string {
	var b strings.Builder
	_ = table(&b, func(w io.Writer) {
		fmt.Fprintln(w, "\nNAME\tADDRESS\tPROCESS\tENVOY\tSTORE\tSERVICES")
		members := s.EtcdProcesses()
		for _, name := range sortedKeys(members) {
			fmt.Fprintf(w, "%s\t\t%s\t\t\t\n", name, cell(members[name]))
		}
		fmt.Fprintf(w, "control plane\t\t%s\t\t\t\n", cell(s.ControlPlane))
		fmt.Fprintf(w, "gateway\t%s\t\t%s\t\t%s\n", s.Gateway.Address, cell(s.Gateway.Processes["envoy"]), services(s.Gateway.Processes))
		for _, n := range s.Nodes {
			fmt.Fprintf(w, "%s\t%s\t\t%s\t%s\t%s\n", n.Name, n.Ingress, cell(n.Processes["envoy"]), cell(n.Processes["store"]), services(n.Processes))
		}
	})
	return b.String()
}

func cell(p localmesh.ProcessStatus) string {
	if p.Restarts > 0 {
		return fmt.Sprintf("%s (restarts: %d)", p.State, p.Restarts)
	}
	return p.State
}

// services names only those that there is something to say of.
func services(processes map[string]localmesh.ProcessStatus) string {
	var out []string
	ready := 0
	for _, name := range sortedKeys(processes) {
		switch text := cell(processes[name]); {
		case name == "envoy" || name == "store":
		case text == "ready":
			ready++
		default:
			out = append(out, name+" "+text)
		}
	}
	if ready > 0 {
		out = append([]string{fmt.Sprint(ready, " ready")}, out...)
	}
	return strings.Join(out, ", ")
}

// addresses says where to go once all runs.
func addresses(s *localmesh.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nHoldfast is up.\n\n  gateway  http://%s\n", s.Gateway.Address)
	for _, n := range s.Nodes {
		fmt.Fprintf(&b, "  %-7s  http://%s\n", n.Name, n.Ingress)
	}
	if s.Page != "" {
		fmt.Fprintf(&b, "\nWatch entities' replicas (whoever has this address can): %s\n", s.Page)
	}
	fmt.Fprintf(&b, "\nData and logs: %s. Ctrl-C stops everything.", s.DataDir)
	return b.String()
}
