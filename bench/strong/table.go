package strong

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
)

// row is a way to increment, or to read.
type row struct {
	name                 string
	way, address, method string
	// processes are those whose CPU time counts, by what they are.
	processes map[string]int
	// reads have no bytes per commit, and their ratios are to reads.
	reads bool
}

// Names of the rows that others are compared with.
const (
	getAndPut     = "etcd get, compare-and-put"
	application   = "application, etcd get, compare-and-put"
	compareAndPut = "etcd compare-and-put"
	atTheStore    = "ours at the store"
	throughEnvoy  = "ours through Envoy"
	etcdRead      = "read: etcd"
)

func rows(t *targets) []row {
	increment := countersv1.Strong_Increment_FullMethodName
	etcd := map[string]int{"etcd": t.etcdPID}
	app := map[string]int{"application": t.appPID, "etcd": t.etcdPID}
	store := map[string]int{"store": t.storePID, "etcd": t.etcdPID}
	ours := map[string]int{"Envoy": t.envoyPID, "store": t.storePID, "service": t.servicePID, "etcd": t.etcdPID}
	return []row{
		{name: getAndPut, way: "etcd-get-put", address: t.etcd, processes: etcd},
		{name: compareAndPut, way: "etcd-put", address: t.etcd, processes: etcd},
		{name: application, way: "grpc", address: t.app, method: increment, processes: app},
		{name: "application, etcd compare-and-put", way: "grpc", address: t.app, method: countersv1.Eventual_Increment_FullMethodName, processes: app},
		{name: atTheStore, way: "store", address: t.store, processes: store},
		{name: throughEnvoy, way: "grpc", address: t.ingress, method: increment, processes: ours},
		{name: etcdRead, way: "etcd-get", address: t.etcd, processes: etcd, reads: true},
		{name: "read: ours at the store", way: "store-get", address: t.store, processes: store, reads: true},
		{name: "read: ours through Envoy", way: "grpc", address: t.ingress, method: countersv1.Strong_Read_FullMethodName, processes: ours, reads: true},
	}
}

// Result is a row at one number of callers.
type Result struct {
	Row     string `json:"row"`
	Callers int    `json:"callers"`
	// PerSec, P50 and P99 are medians over the rounds.
	PerSec float64 `json:"perSecond"`
	P50    float64 `json:"p50Micros"`
	P99    float64 `json:"p99Micros"`
	Failed int     `json:"failed"`
	Runs   []Round `json:"runs"`
	// ToGetPut and ToPut are the ratios of each round to etcd's rows with as many callers in the same round, ToApp to the
	// application that gets and puts, ToOne to the same row with one caller; ToRead for reads.
	ToGetPut []float64 `json:"toGetPut,omitempty"`
	ToApp    []float64 `json:"toApplication,omitempty"`
	ToPut    []float64 `json:"toPut,omitempty"`
	ToOne    []float64 `json:"toOneCaller,omitempty"`
	ToRead   []float64 `json:"toRead,omitempty"`
	reads    bool
}

// Round is one run of a row.
type Round struct {
	Measured
	// CPU is in seconds per 1,000 calls, the load generator's left out; By has it by process.
	CPU float64            `json:"cpuPerThousand"`
	By  map[string]float64 `json:"cpuBy"`
	// WAL is what etcd wrote to its log, Disk what its process wrote to the disk at all, in bytes per commit; Syncs are etcd's
	// syncs of its log per commit.
	WAL   float64 `json:"walBytesPerCommit,omitempty"`
	Disk  float64 `json:"diskBytesPerCommit,omitempty"`
	Syncs float64 `json:"syncsPerCommit,omitempty"`
}

// measureAll runs every row with every number of callers once in each round.
func measureAll(ctx context.Context, s *settings, t *targets) ([]*Result, error) {
	type at struct {
		row     row
		callers int
		result  *Result
	}
	var cells []at
	var results []*Result
	for _, callers := range s.callers {
		for _, r := range rows(t) {
			if !chosen(r.name, s.only) {
				continue
			}
			one := &Result{Row: r.name, Callers: callers, reads: r.reads}
			results = append(results, one)
			cells = append(cells, at{r, callers, one})
		}
	}
	if err := t.activate(ctx, s.keys); err != nil {
		return nil, err
	}
	for round := range s.rounds {
		order := slices.Clone(cells)
		if round%2 == 1 {
			// Every other round goes backwards, so that no row always comes after the same one.
			slices.Reverse(order)
		}
		for _, c := range order {
			one, err := runOne(ctx, s, t, c.row, c.callers)
			if err != nil {
				return nil, fmt.Errorf("%s, c=%d: %w", c.row.name, c.callers, err)
			}
			c.result.Runs = append(c.result.Runs, *one)
			c.result.Failed += one.Failed
			fmt.Fprintf(os.Stderr, "round %d/%d c=%-3d %-40s %8.0f/s  p50 %6.0f µs  p99 %7.0f µs  CPU %.3f %s  WAL %5.0f B  disk %6.0f B  syncs %.2f  failed %d %s\n",
				round+1, s.rounds, c.callers, c.row.name, one.PerSec, one.P50, one.P99, one.CPU, shares(one.By), one.WAL, one.Disk, one.Syncs, one.Failed, one.Problem)
		}
	}
	for _, r := range results {
		r.finish(results)
	}
	return results, nil
}

// chosen reports whether a row's name has one of the words.
func chosen(name, words string) bool {
	for w := range strings.SplitSeq(words, ",") {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// finish computes medians, and ratios within each round.
func (r *Result) finish(all []*Result) {
	r.PerSec, r.P50, r.P99 = r.over(func(x Round) float64 { return x.PerSec }), r.over(func(x Round) float64 { return x.P50 }), r.over(func(x Round) float64 { return x.P99 })
	to := func(name string, callers int) []float64 {
		var out []float64
		for _, other := range all {
			if other.Row != name || other.Callers != callers || other == r {
				continue
			}
			for i, run := range r.Runs {
				out = append(out, run.PerSec/other.Runs[i].PerSec)
			}
		}
		return out
	}
	if r.reads {
		r.ToRead = to(etcdRead, r.Callers)
		return
	}
	r.ToApp = to(application, r.Callers)
	r.ToGetPut, r.ToPut, r.ToOne = to(getAndPut, r.Callers), to(compareAndPut, r.Callers), to(r.Row, 1)
}

func (r *Result) over(get func(Round) float64) float64 {
	all := make([]float64, len(r.Runs))
	for i, run := range r.Runs {
		all[i] = get(run)
	}
	return median(all)
}

// runOne lets a load generator of its own call one row.
func runOne(ctx context.Context, s *settings, t *targets, r row, callers int) (*Round, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "strong", "load", "-way", r.way, "-address", r.address, "-method", r.method,
		"-c", fmt.Sprint(callers), "-keys", fmt.Sprint(s.keys), "-d", s.lasting.String())
	cmd.Stderr = os.Stderr
	before, err := t.meter(ctx, r)
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	after, err := t.meter(ctx, r)
	if err != nil {
		return nil, err
	}
	one := &Round{}
	if err := json.Unmarshal(out, &one.Measured); err != nil {
		return nil, err
	}
	if one.Requests == 0 {
		return nil, errors.New("not one call was answered")
	}
	// The meters ran over the warm-up, too.
	n := float64(one.All)
	one.By = map[string]float64{}
	for name := range r.processes {
		one.By[name] = (after.cpu[name] - before.cpu[name]) / n * 1000
		one.CPU += one.By[name]
	}
	if !r.reads {
		one.WAL, one.Disk, one.Syncs = (after.wal-before.wal)/n, (after.disk-before.disk)/n, (after.syncs-before.syncs)/n
	}
	return one, nil
}

// meter is what was used up to now.
type meter struct {
	cpu              map[string]float64
	wal, disk, syncs float64
}

func (t *targets) meter(ctx context.Context, r row) (meter, error) {
	m := meter{cpu: map[string]float64{}, disk: written(t.etcdPID)}
	for name, pid := range r.processes {
		m.cpu[name] = cpu(pid)
	}
	if r.reads {
		return m, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.etcd+"/metrics", nil)
	if err != nil {
		return m, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return m, fmt.Errorf("etcd's metrics: %w", err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "etcd_disk_wal_write_bytes_total":
			m.wal, _ = strconv.ParseFloat(value, 64)
		case "etcd_disk_wal_fsync_duration_seconds_count":
			m.syncs, _ = strconv.ParseFloat(value, 64)
		}
	}
	return m, nil
}

// cpu is the CPU time that a process has used, in seconds.
func cpu(pid int) (seconds float64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The command in parentheses may hold spaces; utime and stime are fields 14 and 15 of the line.
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0
	}
	for _, f := range fields[11:13] {
		ticks, _ := strconv.ParseFloat(f, 64)
		seconds += ticks / clockTicks
	}
	return seconds
}

// written is what a process has sent to the disk, in bytes; 0 where the kernel does not tell.
func written(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return n
		}
	}
	return 0
}

// markdown is the table: medians over the rounds, ratios as min/median/max.
func (r *Report) markdown() string {
	var b strings.Builder
	b.WriteString("| increments | callers | per second | p50 / p99 µs | to etcd get and put | to an application that does so | to etcd compare-and-put | to one caller | CPU-s per 1,000: all, by process | etcd: log / disk bytes, syncs per commit | failed |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	reads := false
	for _, x := range r.Results {
		if reads = reads || x.reads; x.reads {
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %.0f | %.0f / %.0f | %s | %s | %s | %s | %.3f: %s | %.0f / %.0f, %.2f | %d |\n", x.Row, x.Callers, x.PerSec, x.P50, x.P99,
			spread(x.ToGetPut), spread(x.ToApp), spread(x.ToPut), spread(x.ToOne), x.over(func(x Round) float64 { return x.CPU }), shares(x.by()),
			x.over(func(x Round) float64 { return x.WAL }), x.over(func(x Round) float64 { return x.Disk }), x.over(func(x Round) float64 { return x.Syncs }), x.Failed)
	}
	if reads {
		b.WriteString("\n| reads | callers | per second | p50 / p99 µs | to etcd | CPU-s per 1,000 | failed |\n|---|---|---|---|---|---|---|\n")
		for _, x := range r.Results {
			if x.reads {
				fmt.Fprintf(&b, "| %s | %d | %.0f | %.0f / %.0f | %s | %.3f | %d |\n", strings.TrimPrefix(x.Row, "read: "), x.Callers, x.PerSec, x.P50, x.P99,
					spread(x.ToRead), x.over(func(x Round) float64 { return x.CPU }), x.Failed)
			}
		}
	}
	for _, x := range r.Results {
		for _, run := range x.Runs {
			if run.Problem != "" {
				fmt.Fprintf(&b, "\n%s, %d callers, failed with: %s\n", x.Row, x.Callers, run.Problem)
				break
			}
		}
	}
	return b.String()
}

// by is the CPU time by process, each the median over the rounds.
func (r *Result) by() map[string]float64 {
	out := map[string]float64{}
	for name := range r.Runs[0].By {
		out[name] = r.over(func(x Round) float64 { return x.By[name] })
	}
	return out
}

func shares(by map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%s %.3f", name, by[name]))
	}
	return strings.Join(parts, ", ")
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	mid := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[mid-1] + sorted[mid]) / 2
	}
	return sorted[mid]
}

func spread(ratios []float64) string {
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f/**%.2f**/%.2f", slices.Min(ratios), median(ratios), slices.Max(ratios))
}
