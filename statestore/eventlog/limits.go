package eventlog

import "time"

const (
	// pageCells is how many commits' events are asked for at a time; each is at most 1.4 MB, most are far smaller.
	pageCells = 32
	// messageBytes is about how large a message of events is; a single commit's are never divided for it.
	messageBytes = 256 << 10
	// readTimeout bounds each look into etcd.
	readTimeout = 5 * time.Second
	// retryPause is how soon etcd is asked again by who follows.
	retryPause = 250 * time.Millisecond
	// maxReadings is how many readings a store has at a time. Each that follows has a watch in etcd.
	maxReadings = 512
	// maxRequest is the size of a request: a type and a key.
	maxRequest = 16 << 10
)
