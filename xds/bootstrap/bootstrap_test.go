package bootstrap

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	got, err := JSON(Config{NodeName: "node-1", XDSSocket: "/tmp/hf/xds.sock", AdminSocket: "/tmp/hf/node-1/envoy-admin.sock"})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/node-1.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("bootstrap differs from %s (rewrite with -update):\n%s", golden, got)
	}
}

func TestRefuses(t *testing.T) {
	good := Config{NodeName: "n", XDSSocket: "/x.sock", AdminSocket: "/a.sock"}
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no name", func(c *Config) { c.NodeName = "" }, "NodeName is empty"},
		{"relative socket", func(c *Config) { c.XDSSocket = "x.sock" }, "not an absolute path"},
		{"long socket", func(c *Config) { c.AdminSocket = "/" + strings.Repeat("a", 107) }, "use a shorter folder"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := good
			tc.edit(&c)
			if _, err := JSON(c); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}
