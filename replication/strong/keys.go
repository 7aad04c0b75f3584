package strong

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

const prefix = "/holdfast/"

func storeKey(node string) string { return prefix + "stores/" + url.PathEscape(node) }

func slotKey(s fenced.Slot) string { return prefix + "slots/" + slotPath(s) }

func headKey(s fenced.Slot, key string) string {
	return prefix + "entities/" + slotPath(s) + "/" + url.PathEscape(key)
}

// cellsKey is what the keys of the entity's cells begin with; their names follow as they are.
func cellsKey(s fenced.Slot, key string) string {
	return prefix + "cells/" + slotPath(s) + "/" + url.PathEscape(key) + "/"
}

func slotPath(s fenced.Slot) string { return fmt.Sprintf("%s/%04d", url.PathEscape(s.Type), s.Number) }

// dueKey is what the keys of all marks of a type begin with.
func dueKey(entityType string) string { return prefix + "due/" + url.PathEscape(entityType) + "/" }

// Times are sorted by their twelve digits.
func dueTime(entityType string, at int64) string {
	return fmt.Sprintf("%s%012d/", dueKey(entityType), at)
}

func markKey(s fenced.Slot, key string, at int64) string {
	return fmt.Sprintf("%s%04d/%s", dueTime(s.Type, at), s.Number, url.PathEscape(key))
}

// parseMark is the reverse of markKey. ok is false for what is no mark of the type.
func parseMark(entityType, key string) (m fenced.Mark, ok bool) {
	rest, ok := strings.CutPrefix(key, dueKey(entityType))
	if !ok {
		return m, false
	}
	at, rest, _ := strings.Cut(rest, "/")
	slot, name, ok := strings.Cut(rest, "/")
	if !ok {
		return m, false
	}
	number, err := strconv.ParseUint(slot, 10, 32)
	if err != nil {
		return m, false
	}
	if m.At, err = strconv.ParseInt(at, 10, 64); err != nil {
		return m, false
	}
	if m.Key, err = url.PathUnescape(name); err != nil {
		return m, false
	}
	m.Slot = uint32(number)
	return m, true
}
