package rig

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// RunFolder is the folder with the mesh's Unix sockets.
func (m *Mesh) RunFolder() (string, error) {
	abs, err := filepath.Abs(m.Data)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(abs))
	return fmt.Sprintf("/tmp/holdfast-%d-%s", os.Getuid(), hex.EncodeToString(sum[:4])), nil
}
