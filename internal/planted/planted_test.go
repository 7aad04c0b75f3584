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

// suite is a package's tests that look for a bug.
type suite struct {
	name    string
	folder  string
	args    []string
	counted *regexp.Regexp
}

// tests of a package, all of them.
func tests(folder string) suite {
	return suite{name: folder, folder: folder, args: []string{"-test.short"}, counted: regexp.MustCompile(`(?m)^=== RUN +[^/\n]+$`)}
}

// The simulation goes through its seeds until one fails.
var simulation = suite{
	name: "simulation", folder: "cmd/holdfast/simulation",
	args:    []string{"-test.run", "TestStoresKeepTheirPromises", "-sim.stop", "-sim.seeds", "40"},
	counted: regexp.MustCompile(`(?m)^ *--- (?:PASS|FAIL): TestStoresKeepTheirPromises/\d+ `),
}

// trials say who looks for which bug. Each of the suites has to find it.
var trials = []struct {
	bug    string
	suites []suite
}{
	{planted.FirstOccurrenceWins, []suite{tests("filter/entitykey")}},
	{planted.DeltaBeforeFsync, []suite{tests("statestore")}},
	{planted.IdentityReused, []suite{tests("statestore"), simulation}},
	{planted.TombstoneEarly, []suite{tests("statestore"), simulation}},
	// The other bugs of strong entities are looked for in the histories of callers.
	{planted.FenceLeftOut, []suite{tests("replication/strong")}},
}

// healthySeeds is how many seeds the simulation runs without a bug: that they pass is what makes a failure proof.
const healthySeeds = "8"

// trialTime bounds one suite with one bug.
const trialTime = 4 * time.Minute

// TestEachBugIsFound builds the tests once, with the bugs in them and switched off, requires that they pass, and then
// that they fail with each bug.
func TestEachBugIsFound(t *testing.T) {
	if os.Getenv("HOLDFAST_PLANT") != "" {
		t.Fatal("HOLDFAST_PLANT is set: it is this test's to set")
	}
	binaries := map[string]string{}
	for _, trial := range trials {
		for _, s := range trial.suites {
			if binaries[s.folder] == "" {
				binaries[s.folder] = build(t, s.folder)
			}
		}
	}
	var table bytes.Buffer
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "BUG\tTESTS\tRESULT\tCAUGHT BY\tRAN\tTIME")
	healthy := map[string]bool{}
	for _, trial := range trials {
		for _, s := range trial.suites {
			if healthy[s.name] {
				continue
			}
			healthy[s.name] = true
			args := s.args
			if s.name == simulation.name {
				args = append(append([]string{}, args...), "-sim.seeds", healthySeeds)
			}
			r := try(t, binaries[s.folder], s, args, "")
			fmt.Fprintf(out, "(none)\t%s\t%s\t\t%d\t%s\n", s.name, r.word("passes", "FAILS"), r.ran, r.took)
			if r.failed {
				t.Errorf("%s fails without a bug: %s\n%s", s.name, r.caught, r.tail)
			}
		}
	}
	for _, trial := range trials {
		for _, s := range trial.suites {
			r := try(t, binaries[s.folder], s, s.args, trial.bug)
			result := "found"
			switch {
			case !r.failed:
				result = "NOT FOUND"
				t.Errorf("%s passes with the bug %s", s.name, trial.bug)
			case r.caught == "":
				result = "NO ANSWER"
				t.Errorf("%s with the bug %s ended without a test that failed: a panic, or its time was over\n%s", s.name, trial.bug, r.tail)
			}
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\t%s\n", trial.bug, s.name, result, r.caught, r.ran, r.took)
		}
	}
	out.Flush()
	fmt.Println(table.String())
}

func build(t *testing.T, folder string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "suite.test")
	cmd := exec.Command("go", "test", "-c", "-tags", "planted_bugs", "-o", binary, "./"+folder)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", folder, err, out)
	}
	return binary
}

type verdict struct {
	failed bool
	// caught are the tests that failed.
	caught string
	ran    int
	took   time.Duration
	tail   string
}

func (v verdict) word(passed, failed string) string {
	if v.failed {
		return failed
	}
	return passed
}

var failure = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)

// shownCatches is how many of the tests that failed are named.
const shownCatches = 3

func try(t *testing.T, binary string, s suite, args []string, bug string) verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), trialTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"-test.v", "-test.timeout", (trialTime - 10*time.Second).String()}, args...)...)
	cmd.Dir = filepath.Join("..", "..", s.folder)
	cmd.Env = append(os.Environ(), "HOLDFAST_PLANT="+bug)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	v := verdict{failed: err != nil, ran: len(s.counted.FindAll(out, -1)), took: time.Since(begin).Round(100 * time.Millisecond)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", s.name, err)
	}
	var names []string
	for _, m := range failure.FindAllSubmatch(out, -1) {
		// The innermost name says it all.
		if name := string(m[1]); len(names) == 0 || !strings.HasPrefix(name, names[len(names)-1]+"/") {
			names = append(names, name)
		} else {
			names[len(names)-1] = name
		}
	}
	if len(names) > shownCatches {
		names = append(names[:shownCatches], fmt.Sprintf("and %d more", len(names)-shownCatches))
	}
	v.caught = strings.Join(names, ", ")
	v.tail = string(out[max(0, len(out)-2000):])
	return v
}
