(columns, width, states) => {
  // Of the page: el, message, form, state, BOT.
  const sheet = el('div', {}, Array.from({ length: columns }, () => el('div', { class: 'column' })));
  sheet.style.cssText = `display: flex; gap: 12px; padding: 10px; align-items: flex-start; background: var(--bg); width: max-content; min-width: 100vw`;
  for (const column of sheet.children) column.style.cssText = `width: ${width}px; flex: none`;
  document.documentElement.style.cssText = document.body.style.cssText = 'height: auto; display: block; overflow: visible';
  document.body.replaceChildren(sheet);
  const modal = (s) => {
    state.errors = { [s.name]: s.errors || {} };
    const dialog = el('dialog', {}, form({ ...s.view, id: s.name }, {}));
    dialog.style.cssText = 'display: block; position: static; width: auto; max-width: none; max-height: none; margin: 6px 10px';
    return dialog;
  };
  for (const s of states) {
    const at = 1777863721;
    const name = el('div', { class: 'note' }, s.name);
    name.style.cssText = 'border-top: 1px solid var(--line); padding: 3px 18px 0; margin-top: 8px';
    const shown = s.view ? modal(s) : s.messages.map((m, i) => message({ ts: at + i + '.000100', user: BOT, bot_id: 'B0FLAUDE', ...m }, true, i > 0));
    const lowest = [...sheet.children].reduce((a, b) => (b.offsetHeight < a.offsetHeight ? b : a));
    lowest.append(el('section', { data: { state: s.name } }, name, shown));
  }
  for (const tools of document.querySelectorAll('.tools')) tools.remove();

  const wrong = [];
  const rgb = (s) => (s.match(/[\d.]+/g) || []).map(Number);
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = rgb(getComputedStyle(n).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const scrolls = (node, top) => { for (let n = node; n !== top; n = n.parentElement) if (/auto|scroll/.test(getComputedStyle(n).overflowX)) return n !== node; return false; };
  for (const section of document.querySelectorAll('section[data-state]')) {
    const say = (what, node) => wrong.push(`  ${section.dataset.state}: ${what}: ${(node.textContent || node.localName).trim().slice(0, 60)}`);
    const right = section.parentElement.getBoundingClientRect().right;
    for (const shown of section.querySelectorAll('.message, dialog')) {
      const content = shown.querySelector('.content');
      if (!content || !content.textContent.trim()) say('it shows no text', shown);
      for (const n of shown.querySelectorAll('*')) {
        if (n.getBoundingClientRect().right > right + 1 && !scrolls(n, shown)) { say(`it is ${Math.round(n.getBoundingClientRect().right - right)} px too wide`, n); break; }
      }
    }
    for (const n of section.querySelectorAll('button, a, select, input, textarea')) if (!n.textContent.trim() && !n.ariaLabel && !n.closest('label')) say('it has no name', n);
    for (const n of section.querySelectorAll('.content pre, .content .table')) if (n.scrollWidth > n.clientWidth && n.tabIndex !== 0) say('it cannot be scrolled with keys', n);
    const words = document.createTreeWalker(section, NodeFilter.SHOW_TEXT);
    for (let n = words.nextNode(); n; n = words.nextNode()) {
      if (!n.data.trim() || n.parentElement.closest('.avatar')) continue;
      const style = getComputedStyle(n.parentElement);
      const a = light(rgb(style.color)), b = light(behind(n.parentElement));
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) say(`its contrast is ${contrast.toFixed(1)}`, n.parentElement);
    }
  }
  return wrong.join('\n');
}
