package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files anew")

func run(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = Main(args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// every calls visit with each command and its words.
func every(c *cobra.Command, words []string, visit func(c *cobra.Command, words []string)) {
	visit(c, words)
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" {
			every(sub, append(append([]string(nil), words...), sub.Name()), visit)
		}
	}
}

func TestHelpGolden(t *testing.T) {
	every(newRoot(), nil, func(_ *cobra.Command, words []string) {
		name := strings.Join(append([]string{"holdfast"}, words...), "-")
		t.Run(name, func(t *testing.T) {
			code, got, errOut := run(append(words, "--help")...)
			if code != exitOK || errOut != "" {
				t.Fatalf("got %d, %q", code, errOut)
			}
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("run with -update if this is right; got:\n%s", got)
			}
		})
	})
}

func TestEveryCommandHasAnExample(t *testing.T) {
	every(newRoot(), nil, func(c *cobra.Command, words []string) {
		if !c.Hidden && c.Example == "" {
			t.Errorf("%q has no example", words)
		}
	})
}

func TestExitCodes(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"version"}, exitOK, ""},
		{[]string{"status", "--data-dir", empty}, exitNotRunning, "start one with `holdfast up`"},
		{[]string{"proxy", "status", "--data-dir", empty}, exitNotRunning, "start one with `holdfast up`"},
		{[]string{"key", "get", "a/b", "--data-dir", empty}, exitNotRunning, "start one with `holdfast up`"},
		{[]string{"key", "get", "a"}, exitUsage, "want TYPE/KEY"},
		{[]string{"scale", "none"}, exitUsage, "NODES must be a number"},
		{[]string{"scale", "65"}, exitUsage, "NODES must be a number from 1 to 64"},
		{[]string{"scale"}, exitUsage, "accepts 1 arg"},
		{[]string{"up"}, exitUsage, `required flag(s) "file" not set`},
		{[]string{"status", "-o", "xml"}, exitUsage, "must be table or json"},
		{[]string{"nonsense"}, exitUsage, "unknown command \"nonsense\" for \"holdfast\"\nSee"},
		{[]string{"statsu"}, exitUsage, "unknown command \"statsu\" for \"holdfast\": did you mean `holdfast status`?"},
		{[]string{"proxy", "stat"}, exitUsage, "did you mean `holdfast proxy status`?"},
		{[]string{"key", "got"}, exitUsage, "did you mean `holdfast key get`?"},
		{[]string{"gard"}, exitUsage, "unknown command \"gard\" for \"holdfast\"\nSee"},
	} {
		code, _, errOut := run(c.args...)
		if code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("%q: got %d, %q; want %d, %q", c.args, code, errOut, c.code, c.want)
		}
	}
}
