package gossip

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// NewKeyFile returns the contents of a key file with one fresh 256-bit key.
func NewKeyFile() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return []byte(base64.StdEncoding.EncodeToString(key) + "\n")
}

// ParseKeys reads a key file: one key a line, 16, 24 or 32 bytes in base64. All of them decrypt, the first one encrypts.
func ParseKeys(file []byte) ([][]byte, error) {
	var keys [][]byte
	for i, line := range strings.Split(string(file), "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("gossip key in line %d is not base64", i+1) // Never the key itself.
		}
		switch len(key) {
		case 16, 24, 32:
		default:
			return nil, fmt.Errorf("gossip key in line %d has %d bytes, want 16, 24 or 32", i+1, len(key))
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("gossip key file has no key")
	}
	return keys, nil
}
