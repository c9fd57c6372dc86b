//go:build !linux

package runner

import "errors"

// namespace is a network namespace, which only Linux has.
type namespace struct{}

func newNamespace() (namespace, error) { return namespace{}, errors.New("only Linux can") }

func (namespace) do(func() error) error { return errors.New("only Linux can") }

func (namespace) close() error { return nil }
