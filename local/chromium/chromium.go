// Package chromium opens a headless Chromium for tests that look at pages as people see them. Only tests import it.
package chromium

import (
	"context"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
)

// Open opens a browser of its own for a test, with a window of so many pixels, for somebody who likes pages dark or not. The first step
// that is done in its context starts it; it ends with the test. Without a chromium on the PATH the test is left out.
func Open(tb testing.TB, width, height int, dark bool) context.Context {
	tb.Helper()
	bin, err := exec.LookPath("chromium")
	if err != nil {
		tb.Skip("left out: Chromium is not installed")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin), chromedp.UserDataDir(tb.TempDir()), chromedp.WindowSize(width, height))
	for _, flag := range []string{"no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync"} {
		opts = append(opts, chromedp.Flag(flag, true))
	}
	if dark {
		opts = append(opts, chromedp.Flag("blink-settings", "preferredColorScheme=0"))
	}
	// The browser outlives the test's own context, which ends before what the test cleans up.
	alloc, stop := chromedp.NewExecAllocator(context.WithoutCancel(tb.Context()), opts...)
	tb.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(alloc)
	tb.Cleanup(closeTab)
	return ctx
}
