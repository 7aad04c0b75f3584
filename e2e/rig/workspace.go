package rig

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
)

// shadowDemo builds a tree of links to the repository in which only the demo's holdfast.yaml is a real file, so that a test
// may change it and all that it names relative to itself is still found. It returns that file's path.
func shadowDemo(root, folder string) (string, error) {
	shadow := filepath.Join(folder, "repo")
	if err := linkAll(root, shadow, "examples"); err != nil {
		return "", err
	}
	if err := linkAll(filepath.Join(root, "examples"), filepath.Join(shadow, "examples"), "demo"); err != nil {
		return "", err
	}
	demo := filepath.Join(shadow, "examples/demo")
	if err := linkAll(filepath.Join(root, "examples/demo"), demo, "holdfast.yaml"); err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(root, "examples/demo/holdfast.yaml"))
	if err != nil {
		return "", err
	}
	config := filepath.Join(demo, "holdfast.yaml")
	return config, os.WriteFile(config, data, 0o644)
}

// linkAll links every entry of from but one into to.
func linkAll(from, to, but string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == but {
			continue
		}
		if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// freeBase finds a port base whose ports nobody listens on, beginning at a random one: several meshes may start at once.
func freeBase(nodes int) (int, error) {
	steps := (lastBase - firstBase) / baseStep
	first := rand.IntN(steps)
	for i := range steps {
		base := firstBase + (first+i)%steps*baseStep
		if free(base, base+nodes+8) && free(base+100, base+baseStep-1) {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no free block of ports between %d and %d", firstBase, lastBase)
}

func free(from, to int) bool {
	for port := from; port <= to; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
