package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// StoreStatus asks a node's store for its status, over the store's own API: frames of a 4-byte length and one message.
func (m *Mesh) StoreStatus(node string) (*storev1.StoreStatus, error) {
	resp, err := m.storeCall(node, &storev1.Request{Id: 1, Call: &storev1.Request_GetStatus{GetStatus: &storev1.GetStatus{}}})
	if err != nil {
		return nil, fmt.Errorf("status of the store of %s: %w", node, err)
	}
	return resp.GetStatus(), nil
}

func (m *Mesh) storeCall(node string, req *storev1.Request) (*storev1.Response, error) {
	folder, err := m.RunFolder()
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", filepath.Join(folder, node, "store.sock"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTimeout))
	payload, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)); err != nil {
		return nil, err
	}
	for {
		var head [4]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxBody {
			return nil, fmt.Errorf("frame of %d bytes", n)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(conn, data); err != nil {
			return nil, err
		}
		resp := &storev1.Response{}
		if err := proto.Unmarshal(data, resp); err != nil {
			return nil, err
		}
		if resp.GetId() != req.GetId() {
			continue
		}
		if e := resp.GetError(); e != nil {
			return nil, errors.New(e.GetMessage())
		}
		return resp, nil
	}
}
