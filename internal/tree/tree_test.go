package tree

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/holdfast-mesh/holdfast/"

// mayImport says which of our folders a folder's packages may import, beside themselves. The longest matching folder
// counts. Everybody may use internal/ (but see below for internal itself).
var mayImport = map[string][]string{
	"proto":       {},
	"internal":    {"proto"},
	"statestore":  {"proto"},
	"replication": {"proto", "statestore/crdt"},
	"filter":      {"proto"},
	"xds":         {"proto"},
	// The control plane turns documents into xds/ir; it never sees a store's or a filter's code.
	"controlplane": {"proto", "xds"},
	"cmd":          {"proto", "statestore", "replication", "filter", "xds", "controlplane"},
	// What a user may import: the options and the contract.
	"examples": {"proto/holdfast/v1"},
	// A test from outside knows the product by its wires only. It drives the examples' services.
	"e2e": {"proto", "examples"},
	// bench/disk compares the log with others of its kind.
	"bench": {"proto", "examples", "e2e/rig", "statestore/wal"},
}

// noInternal are the folders that may not even import internal/.
var noInternal = []string{"proto", "examples", "e2e"}

// pure packages decide and compute. They start no goroutine, so that every interleaving is the caller's to script.
var pure = []string{
	"filter", "filter/grpcframe", "filter/entitykey", "filter/statefield", "statestore/crdt", "statestore/slots", "statestore/strong/entity", "replication/strong/ownership", "replication/level", "replication/gossip/rounds",
	"replication/gossip/settle", "xds/ir", "xds/translate",
	"xds/bootstrap", "internal/placement", "internal/frame", "internal/mesh", "controlplane/api/v1alpha1",
}

// onlyIn says which folder alone imports a library, so that it can be replaced and its traps are known in one place.
var onlyIn = map[string]string{
	"C":                                       "filter/host",
	"github.com/hashicorp/memberlist":         "replication/gossip",
	"go.etcd.io/etcd/client":                  "internal/etcd",
	"go.etcd.io/etcd/server":                  "internal/etcd",
	"github.com/envoyproxy/go-control-plane":  "xds",
	"github.com/envoyproxy/envoy/source":      "filter/host",
	"github.com/spf13/cobra":                  "cmd",
	"github.com/stretchr/testify":             "nowhere: plain got and want",
	"github.com/envoyproxy/envoy/contrib":     "filter/host",
	"github.com/golang/protobuf":              "nowhere: google.golang.org/protobuf replaces it",
	"math/rand":                               "nowhere: math/rand/v2 replaces it",
	"io/ioutil":                               "nowhere: io and os replace it",
	"golang.org/x/exp":                        "nowhere: its packages change without notice",
	"github.com/golang/mock":                  "nowhere: a struct of functions does",
	"github.com/envoyproxy/envoy/api":         "nowhere: go-control-plane has it",
	"github.com/prometheus/client_golang/api": "nowhere: metrics are exported, never asked for",
}

// skipped folders hold no source of ours.
var skipped = []string{".git", ".cache", ".holdfast", "bin", "lib", "node_modules", "testdata", "__pycache__", "venv"}

// transitional packages go away with the first whole build.
var transitional = []string{"internal/deps"}

type file struct {
	// path and folder are relative to the module's root.
	path, folder string
	test         bool
	ast          *ast.File
}

// root is the module's root.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// walk calls visit with every file's path relative to the root.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root(t)), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipped, d.Name()):
			return fs.SkipDir
		case d.Type().IsRegular():
			visit(p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func goFiles(t *testing.T) []*file {
	t.Helper()
	var files []*file
	fset := token.NewFileSet()
	walk(t, func(p string) {
		if !strings.HasSuffix(p, ".go") || slices.Contains(transitional, path.Dir(p)) {
			return
		}
		parsed, err := parser.ParseFile(fset, filepath.Join(root(t), p), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, &file{path: p, folder: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), ast: parsed})
	})
	if len(files) < 50 {
		t.Fatalf("only %d Go files found: the walk is wrong", len(files))
	}
	return files
}

// under says whether folder is parent or below it.
func under(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

func imports(f *file) []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		out = append(out, p)
	}
	return out
}

func TestImportsGoDown(t *testing.T) {
	for _, f := range goFiles(t) {
		part, _, _ := strings.Cut(f.folder, "/")
		if f.folder == "internal/tree" {
			continue
		}
		allowed, known := mayImport[part]
		if !known {
			t.Errorf("%s: folder %s is not in the table of DESIGN's parts", f.path, part)
			continue
		}
		for _, p := range imports(f) {
			ours, ok := strings.CutPrefix(p, module)
			if !ok {
				continue
			}
			good := under(ours, part) || slices.ContainsFunc(allowed, func(a string) bool { return under(ours, a) })
			if under(ours, "internal") && !slices.Contains(noInternal, part) {
				good = true
			}
			if !good {
				t.Errorf("%s imports %s; %s may import %q beside itself and internal/", f.path, ours, part, allowed)
			}
		}
	}
}

func TestLibrariesInOnePlace(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, p := range imports(f) {
			for library, where := range onlyIn {
				exact := p == library || strings.HasPrefix(p, library+"/")
				if library == "math/rand" || library == "C" {
					exact = p == library
				}
				if exact && !under(f.folder, where) {
					t.Errorf("%s imports %s; allowed: %s", f.path, p, where)
				}
			}
		}
	}
}

func TestPurePackagesStartNoGoroutine(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test || !slices.Contains(pure, f.folder) {
			continue
		}
		seen[f.folder] = true
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine, and %s is a pure package", f.path, f.folder)
			}
			return true
		})
	}
	for _, p := range pure {
		if !seen[p] {
			t.Logf("pure package %s does not exist yet", p)
		}
	}
}

func TestOnePackageComment(t *testing.T) {
	comments := map[string][]string{}
	for _, f := range goFiles(t) {
		if f.test || strings.HasSuffix(f.path, ".pb.go") {
			continue
		}
		if _, ok := comments[f.folder]; !ok {
			comments[f.folder] = nil
		}
		if f.ast.Doc != nil {
			comments[f.folder] = append(comments[f.folder], f.path)
		}
	}
	for folder, in := range comments {
		if len(in) != 1 {
			t.Errorf("%s has %d package comments, want exactly one: %q", folder, len(in), in)
		}
	}
}

// machine finds what belongs to one machine: home folders and other absolute places where a clone may lie.
var machine = regexp.MustCompile(`(^|[^\w.$}/])/(work|root|home|Users|opt)/[a-zA-Z0-9]|proxy\.golang\.` + `org|/tmp/` + `plan`)

func TestNoMachinePaths(t *testing.T) {
	walk(t, func(p string) {
		if path.Ext(p) == ".sum" || under(p, "internal/tree") {
			return
		}
		data, err := os.ReadFile(filepath.Join(root(t), p))
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(data[:min(len(data), 8000)], 0) {
			return // Not text.
		}
		for i, line := range strings.Split(string(data), "\n") {
			if m := machine.FindString(line); m != "" {
				t.Errorf("%s:%d names a place on one machine: %q", p, i+1, m)
			}
		}
	})
}
