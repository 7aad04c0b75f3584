package links

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Owner finds which of some processes has the IPv4 loopback TCP socket with that local port, by its number among pids; -1
// where none has it.
func Owner(port int, pids []int) int {
	inode, ok := inodeOf(port)
	if !ok {
		return -1
	}
	link := fmt.Sprintf("socket:[%d]", inode)
	for i, pid := range pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if name, err := os.Readlink(fd); err == nil && name == link {
				return i
			}
		}
	}
	return -1
}

// inodeOf finds the connected socket with that local port in the kernel's table.
func inodeOf(port int) (inode uint64, ok bool) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	local := fmt.Sprintf("0100007F:%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode.
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[1] == local {
			if inode, err = strconv.ParseUint(fields[9], 10, 64); err == nil && inode != 0 {
				return inode, true
			}
		}
	}
	return 0, false
}
