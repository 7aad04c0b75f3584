//go:build planted_bugs

package planted_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/planted"
)

// strongRuns is within how many runs a bug of strong entities has to be found.
const strongRuns = 5

// strongTrialTime bounds the runs with one bug, the mesh's start included.
const strongTrialTime = 12 * time.Minute

// histories are taken on real processes, by callers through Envoys. They are judged as linearizable or not.
type histories struct {
	test string
	args []string
	// run is a line for each run that was judged, and what a run is called.
	run  *regexp.Regexp
	unit string
}

var (
	linearizable = histories{
		test: "TestLinearizable", args: []string{"-linear.time", "40s"},
		run: regexp.MustCompile(`(?m)^ +--- (?:PASS|FAIL): TestLinearizable/run-\d+ `), unit: "runs",
	}
	// Each pause is a run: the history is judged after each.
	fencing = histories{
		test: "TestPausedHolderDoesNotWrite", args: []string{"-linear.holders", "100"},
		run: regexp.MustCompile(`pause \d+: `), unit: "pauses",
	}
)

var strongTrials = []struct {
	bug  string
	find histories
}{
	{planted.ReadWithoutLease, linearizable},
	{planted.AckBeforeCommit, linearizable},
	{planted.RetryWithoutID, linearizable},
	{planted.FenceLeftOut, fencing},
}

// TestEachStrongBugIsFound builds bin/holdfast once, with the bugs in it and switched off, requires that its histories are
// linearizable, and then that they are not with each bug. `make build` comes first: Envoy and the module are taken as they are.
func TestEachStrongBugIsFound(t *testing.T) {
	if os.Getenv("HOLDFAST_PLANT") != "" {
		t.Fatal("HOLDFAST_PLANT is set: it is this test's to set")
	}
	root := plantedRoot(t)
	binary := build(t, "e2e/linear")
	var table bytes.Buffer
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "BUG\tTEST\tRESULT\tAFTER\tTIME")
	for _, find := range []histories{linearizable, fencing} {
		r := judge(t, root, binary, find, "", 1)
		result := "linearizable"
		if r.failed {
			result = "FAILS"
			t.Errorf("%s fails without a bug:\n%s", find.test, r.tail)
		}
		fmt.Fprintf(out, "(none)\t%s\t%s\t%d %s\t%s\n", find.test, result, r.ran, find.unit, r.took)
	}
	for _, trial := range strongTrials {
		r := judge(t, root, binary, trial.find, trial.bug, strongRuns)
		result := "found"
		switch {
		case !r.failed:
			result = "NOT FOUND"
			t.Errorf("%s passes with the bug %s", trial.find.test, trial.bug)
		case r.caught == "":
			result = "NO VERDICT"
			t.Errorf("%s with the bug %s failed, but its history was not judged illegal:\n%s", trial.find.test, trial.bug, r.tail)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%d %s\t%s\n", trial.bug, trial.find.test, result, r.ran, trial.find.unit, r.took)
	}
	out.Flush()
	fmt.Println(table.String())
}

// plantedRoot is a folder like the repository in which bin/holdfast has the bugs.
func plantedRoot(t *testing.T) string {
	t.Helper()
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"bin/envoy": "bin/envoy", "lib": "lib", "examples": "examples"} {
		if err := os.Symlink(filepath.Join(repo, target), filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-tags", "planted_bugs", "-o", filepath.Join(root, "bin/holdfast"), "./cmd/holdfast")
	cmd.Dir = repo
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build bin/holdfast with the bugs: %v\n%s", err, out)
	}
	return root
}

var illegal = regexp.MustCompile(`the history is (Illegal)`)

// judge runs a test until its first illegal history, for a number of runs at most.
func judge(t *testing.T, root, binary string, find histories, bug string, runs int) verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), strongTrialTime)
	defer cancel()
	args := append([]string{
		"-test.v", "-test.timeout", (strongTrialTime - 10*time.Second).String(), "-test.run", "^" + find.test + "$",
		"-linear.root", root, "-linear.stop", "-linear.runs", fmt.Sprint(runs),
	}, find.args...)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = filepath.Join("..", "..", "e2e", "linear")
	cmd.Env = append(os.Environ(), "HOLDFAST_PLANT="+bug)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", find.test, err)
	}
	v := verdict{failed: err != nil, ran: len(find.run.FindAll(out, -1)), took: time.Since(begin).Round(time.Second)}
	if m := illegal.FindSubmatch(out); m != nil {
		v.caught = strings.ToLower(string(m[1]))
	}
	v.tail = string(out[max(0, len(out)-2000):])
	return v
}
