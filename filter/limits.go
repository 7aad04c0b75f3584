package filter

import "time"

const (
	// MaxMessage bounds a request's first message and a reply that is searched for state out: gRPC's own default for a
	// received message. Both are held in memory for as long as the store is asked.
	MaxMessage = 4 << 20

	// MaxMetadataValue bounds a value that travels as metadata. gRPC-Java takes 8 KiB of metadata in all, others 16, and
	// base64 adds a third; more goes by field carriage.
	MaxMetadataValue = 4 << 10

	// valueFraming is what protobuf has around so many bytes.
	valueFraming = 3

	// MaxStateHeader bounds the encoded state header: MaxMetadataValue in base64 with room for type, key and version.
	// JSON may need more than base64 for the same value, so it is checked too.
	MaxStateHeader = 7 << 10

	// MaxStateOut bounds the encoded state out in a reply's trailers, by the same reasoning as MaxStateHeader.
	MaxStateOut = 16 << 10

	// MaxIdempotencyKey bounds the caller's Idempotency-Key header; it is hashed, so this only bounds the work.
	MaxIdempotencyKey = 256

	// MaxVersion bounds the version in a caller's if-match; ours are far shorter.
	MaxVersion = 64

	// MaxHosts bounds the addresses that a request may be tried at: the first and Envoy's five retries.
	MaxHosts = 6

	// MaxWatchBacklog bounds what one handler call may produce while the watch's caller takes nothing.
	MaxWatchBacklog = 4 << 20

	// MaxWatchHeaders bounds the caller's headers that a watch keeps to give them to each handler call.
	MaxWatchHeaders = 64

	// MaxCodeDetails bounds what is kept of Envoy's words for why it answered by itself.
	MaxCodeDetails = 256

	// StoreTimeout is how long a read waits for the store where the caller set no deadline.
	StoreTimeout = 10 * time.Second

	// TurnTimeout is how long a strong command may wait for and hold its entity's turn where the caller set no deadline:
	// long enough for a slow service, short enough that a lost node does not block an entity for long.
	TurnTimeout = 30 * time.Second

	// CommitTimeout is how long a commit may take where the caller set no deadline; after it the outcome is unknown. It
	// is also how long a commit of level MAJORITY or ALL waits for the other replicas.
	CommitTimeout = 10 * time.Second

	// CommitMargin is how much earlier than we the store gives up, at most; a tenth of the time where that is less. Its
	// own last word is better than our "unknown": it may know that nothing was applied.
	CommitMargin = 100 * time.Millisecond

	// MaxTimeout bounds a caller's grpc-timeout, which may name thousands of years.
	MaxTimeout = 24 * time.Hour
)
