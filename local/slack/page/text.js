// Text of messages as nodes: Slack's mrkdwn, and the Markdown of its markdown block. What a message holds is only ever put into
// text nodes, so that nothing in it can become HTML.
'use strict';

function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k === 'class') node.className = v;
    else if (k.startsWith('on')) node.addEventListener(k.slice(2), v);
    else if (k === 'data') Object.assign(node.dataset, v);
    else node.setAttribute(k, v === true ? '' : v);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

const text = (s) => document.createTextNode(s);

const icons = {
  menu: 'M2 4h12M2 8h12M2 12h12', close: 'M4 4l8 8M12 4l-8 8', plus: 'M8 3v10M3 8h10', down: 'M8 3v9M4.5 8.5L8 12l3.5-3.5',
  react: 'M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4zM5.4 9.4c1.3 2 3.9 2 5.2 0M6 6.1v.2M10 6.1v.2',
  thread: 'M2.5 3h11v8H8l-3 2.6V11H2.5zM5 6h6M5 8.3h4', edit: 'M10.8 2.7l2.5 2.5-7.6 7.6-3.2.7.7-3.2z', trash: 'M3 4.5h10M6.3 4.5V2.8h3.4v1.7M4.3 4.5l.6 8.7h6.2l.6-8.7',
  manage: 'M2 5h6.5M11.5 5H14M2 11h2.5M7.5 11H14M10 3.3a1.7 1.7 0 1 0 0 3.4 1.7 1.7 0 0 0 0-3.4zM6 9.3a1.7 1.7 0 1 0 0 3.4 1.7 1.7 0 0 0 0-3.4z',
  eye: 'M1.5 8C4 3.5 12 3.5 14.5 8 12 12.5 4 12.5 1.5 8zM8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4z', file: 'M4 1.800h5l3.2 3.200v9.200H4zM9 1.800V5h3.2',
  copy: 'M5.5 5.500h7.700v7.700H5.500zM3 10.500h-.2V2.800h7.700V3',
};

function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  for (const [k, v] of Object.entries({ viewBox: '0 0 16 16', class: 'icon', 'aria-hidden': 'true' })) svg.setAttribute(k, v);
  const path = document.createElementNS(ns, 'path');
  path.setAttribute('d', icons[name]);
  svg.append(path);
  return svg;
}

const emoji = Object.fromEntries(('eyes 👀 white_check_mark ✅ x ❌ +1 👍 thumbsup 👍 -1 👎 heart ❤️ tada 🎉 smile 😄 grin 😁 joy 😂 slightly_smiling_face 🙂 ' +
  'thinking_face 🤔 wave 👋 pray 🙏 clap 👏 fire 🔥 rocket 🚀 warning ⚠️ hourglass ⌛ hourglass_flowing_sand ⏳ octagonal_sign 🛑 no_entry ⛔ bulb 💡 bug 🐛 ' +
  'wrench 🔧 hammer 🔨 memo 📝 lock 🔒 key 🔑 mag 🔍 100 💯 ok_hand 👌 raised_hands 🙌 sob 😭 sweat_smile 😅 star ⭐ sparkles ✨ zap ⚡ boom 💥 question ❓ ' +
  'exclamation ❗ robot_face 🤖 coffee ☕ recycle ♻️ package 📦 link 🔗 stopwatch ⏱️ clock1 🕐 arrow_right ➡️ heavy_check_mark ✔️ information_source ℹ️')
  .split(' ').reduce((all, w, i, list) => (i % 2 ? [...all, [list[i - 1], w]] : all), []));

const entities = { '&lt;': '<', '&gt;': '>', '&amp;': '&' };
const decode = (s) => s.replace(/&(lt|gt|amp);/g, (m) => entities[m]);

// names is set by the page: what people and channels are called.
const names = { person: (id) => id, channel: (id) => id };

function link(url, label) {
  if (!/^(https?|mailto):/i.test(url)) return text(label);
  return el('a', { href: url, target: '_blank', rel: 'noreferrer noopener' }, label);
}

// token is what stands between < and >: a person, a channel, a date, a link.
function token(inner) {
  const [what, label] = inner.split(/\|(.*)/s);
  if (what[0] === '@') return el('span', { class: 'mention' }, '@' + names.person(what.slice(1)));
  if (what[0] === '#') return el('span', { class: 'mention' }, '#' + (label || names.channel(what.slice(1))));
  if (what.startsWith('!date^')) {
    const at = new Date(Number(what.split('^')[1]) * 1000);
    if (isNaN(at)) return text(decode(label || what));
    return el('time', { datetime: at.toISOString() }, at.toLocaleString([], { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' }));
  }
  if (what[0] === '!') return el('span', { class: 'mention' }, decode(label || '@' + what.slice(1).split('^')[0]));
  const url = decode(what);
  return /^(https?|mailto):/i.test(url) ? link(url, decode(label || what)) : text(decode('<' + inner + '>'));
}

// inline renders text by rules: each is a pattern (global) and what becomes of a match. It takes each pattern's next match once.
function inline(s, rules, depth = 0) {
  const out = [];
  const plain = (t) => { if (t) out.push(text(decode(t))); };
  if (depth > 8) { plain(s); return out; }
  const next = rules.map(() => undefined);
  let at = 0;
  for (;;) {
    let best = -1;
    for (let i = 0; i < rules.length; i++) {
      if (next[i] === null) continue;
      if (next[i] === undefined || next[i].index < at) {
        const pattern = new RegExp(rules[i][0].source, 'g');
        pattern.lastIndex = at;
        next[i] = pattern.exec(s);
        if (!next[i]) continue;
      }
      if (best < 0 || next[i].index < next[best].index) best = i;
    }
    if (best < 0) break;
    const m = next[best];
    plain(s.slice(at, m.index));
    out.push(rules[best][1](m, depth));
    at = m.index + m[0].length;
  }
  plain(s.slice(at));
  return out;
}

const emojiRule = [/:([a-z0-9_+-]+):/, (m) => (emoji[m[1]] ? el('span', { title: m[0] }, emoji[m[1]]) : text(m[0]))];

const mrkdwnRules = [
  [/`([^`\n]+)`/, (m) => el('code', {}, decode(m[1]))],
  [/<([^<>\n]+)>/, (m) => token(m[1])],
  [/(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])/, (m, d) => el('strong', {}, inline(m[1], mrkdwnRules, d + 1))],
  [/(?<!\w)_([^\s_](?:[^_\n]*[^\s_])?)_(?!\w)/, (m, d) => el('em', {}, inline(m[1], mrkdwnRules, d + 1))],
  [/(?<![\w~])~([^\s~](?:[^~\n]*[^\s~])?)~(?![\w~])/, (m, d) => el('s', {}, inline(m[1], mrkdwnRules, d + 1))],
  emojiRule,
];

const markdownRules = [
  [/\\([\\`*_{}[\]()#+.!|<>~-])/, (m) => text(m[1])],
  [/(?<!`)(`+)(?!`)([^`]|[^`][\s\S]{0,4000}?[^`])\1(?!`)/, (m) => el('code', {}, decode(m[2].replace(/^ (.*\S.*) $/s, '$1')))],
  [/!?\[([^\]\n]{0,500})\]\((<[^<>\n]{1,2000}>|[^()\s]{1,2000}(?:\([^()\s]*\)[^()\s]*)?)(?: "[^"\n]*")?\)/,
    (m, d) => { const url = m[2].replace(/^<(.*)>$/, '$1'); return /^(https?|mailto):/i.test(url) ? el('a', { href: url, target: '_blank', rel: 'noreferrer noopener' }, m[1] ? inline(m[1], markdownRules.slice(0, 2), d + 1) : url) : text(m[1] || url); }],
  [/<((?:https?:|mailto:|[@#!])[^<>\n]+)>/, (m) => token(m[1])],
  [/\bhttps?:\/\/[^\s<>)\]]*[^\s<>)\].,;:!?'"*_]/, (m) => link(m[0], m[0])],
  [/\*\*\*([^\s*](?:[^*]{0,2000}[^\s*])?)\*\*\*/, (m, d) => el('strong', {}, el('em', {}, inline(m[1], markdownRules, d + 1)))],
  [/\*\*([^\s*](?:[\s\S]{0,2000}?\S)??)\*\*(?!\*)/, (m, d) => el('strong', {}, inline(m[1], markdownRules, d + 1))],
  [/(?<!\w)__([^\s_](?:[\s\S]{0,2000}?\S)??)__(?!\w)/, (m, d) => el('strong', {}, inline(m[1], markdownRules, d + 1))],
  [/(?<![*\\])\*((?:\\.|[^\s*\\])(?:(?:\\.|[^*\\]){0,2000}?(?:\\.|[^\s*\\]))??)\*(?!\*)/, (m, d) => el('em', {}, inline(m[1], markdownRules, d + 1))],
  [/(?<!\w)_([^\s_](?:[^_]{0,2000}?[^\s_])??)_(?!\w)/, (m, d) => el('em', {}, inline(m[1], markdownRules, d + 1))],
  [/~~([^\s~](?:[\s\S]{0,2000}?\S)??)~~/, (m, d) => el('s', {}, inline(m[1], markdownRules, d + 1))],
  emojiRule,
];

function codeBlock(code, language) {
  const copy = el('button', { type: 'button', class: 'copy bare', 'aria-label': 'Copy the code', onclick: () => navigator.clipboard.writeText(code) }, icon('copy'));
  return el('div', { class: 'code' }, language ? el('span', { class: 'language' }, language) : null, copy, el('pre', { tabindex: 0 }, el('code', {}, code)));
}

const picture = (e) => el('img', { src: e.image_url, alt: e.alt_text || '', loading: 'lazy' });

// ── mrkdwn ──

function mrkdwn(s) {
  const out = [];
  const parts = s.split('```');
  for (const [i, part] of parts.entries()) {
    if (i % 2 && i < parts.length - 1) { out.push(codeBlock(decode(part.replace(/^\n|\n$/g, '')))); continue; }
    const lines = ((i % 2 ? '```' : '') + part).replace(i ? /^\n/ : /(?!)/, '').split('\n');
    for (let at = 0; at < lines.length;) {
      const quoted = /^(&gt;|>)/.test(lines[at]);
      const group = [];
      for (; at < lines.length && /^(&gt;|>)/.test(lines[at]) === quoted; at++) group.push(quoted ? lines[at].replace(/^(&gt;|>) ?/, '') : lines[at]);
      const all = group.join('\n').replace(/^\n+|\s+$/g, '');
      if (all) out.push(el(quoted ? 'blockquote' : 'p', {}, inline(all, mrkdwnRules)));
    }
  }
  return out;
}

// ── Markdown ──

const fenceLine = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const itemLine = /^( *)([-*+]|\d{1,9}[.)])( +|$)(.*)$/;
const separator = /^ *\|? *:?-+:? *(\| *:?-+:? *)*\|? *$/;
const startsBlock = (l) => fenceLine.test(l) || /^ {0,3}(#{1,6} |>)/.test(l) || /^ {0,3}([-*+]|1[.)]) /.test(l) || /^ {0,3}([-*_] *){3,}$/.test(l);

// markdown renders what Slack's markdown block does: fences, headings, lists, tasks, quotes, tables, paragraphs.
const markdown = (s) => blocksOf(s.replace(/\t/g, '    ').replace(/\r\n?/g, '\n').split('\n'), s.includes('\t') ? s.split(/\r\n?|\n/) : null, 0);

// blocksOf renders lines; raw are the same lines with their tabs, for code.
function blocksOf(lines, raw, depth) {
  const out = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const fence = line.match(fenceLine);
    if (fence) {
      const code = [];
      const closing = new RegExp('^ {0,3}' + fence[2][0] + '{' + fence[2].length + ',} *$');
      for (i++; i < lines.length && !closing.test(lines[i]); i++) code.push(dedent(raw ? raw[i] : lines[i], fence[1].length));
      i++;
      out.push(codeBlock(code.join('\n'), fence[3].trim().split(/\s/)[0]));
      continue;
    }
    const heading = line.match(/^ {0,3}(#{1,6}) +(.*?)(?: +#+)? *$/);
    if (heading) { out.push(el('h3', { class: 'h' + heading[1].length }, inline(heading[2], markdownRules))); i++; continue; }
    if (/^ {0,3}([-*_] *){3,}$/.test(line)) { out.push(el('hr')); i++; continue; }
    if (itemLine.test(line) && depth < 12) { i = list(lines, raw, i, out, depth); continue; }
    if (/^ {0,3}>/.test(line)) {
      const quote = [];
      for (; i < lines.length && /^ {0,3}>/.test(lines[i]); i++) quote.push(lines[i].replace(/^ {0,3}> ?/, ''));
      out.push(el('blockquote', {}, depth < 12 ? blocksOf(quote, null, depth + 1) : quote.join('\n')));
      continue;
    }
    if (line.includes('|') && (lines[i + 1] || '').includes('-') && (lines[i + 1] || '').includes('|') && separator.test(lines[i + 1])) { i = table(lines, i, out); continue; }
    if (!line.trim()) { i++; continue; }
    const para = [line.trim()];
    for (i++; i < lines.length && lines[i].trim() && !startsBlock(lines[i]); i++) para.push(lines[i].trim());
    out.push(el('p', {}, inline(para.join('\n'), markdownRules)));
  }
  return out;
}

// dedent takes so many columns of indentation away; a tab has four.
function dedent(line, columns) {
  let at = 0, n = 0;
  for (; n < columns && (line[at] === ' ' || line[at] === '\t'); at++) n += line[at] === ' ' ? 1 : 4;
  return ' '.repeat(Math.max(n - columns, 0)) + line.slice(at);
}

function list(lines, raw, i, out, depth) {
  const first = lines[i].match(itemLine);
  const ordered = /\d/.test(first[2]);
  const node = el(ordered ? 'ol' : 'ul', ordered ? { start: parseInt(first[2], 10) } : {});
  while (i < lines.length) {
    const m = lines[i].match(itemLine);
    if (!m || m[1].length < first[1].length || m[1].length > first[1].length + 1 || /\d/.test(m[2]) !== ordered || m[2].at(-1) !== first[2].at(-1)) break;
    const inner = m[1].length + m[2].length + Math.min(Math.max(m[3].length, 1), 4);
    const least = m[1].length + 2;
    const task = m[4].match(/^\[([ xX])\] +(.*)$/);
    const own = [task ? task[2] : m[4]];
    const ownRaw = [own[0]];
    for (i++; i < lines.length; i++) {
      const l = lines[i];
      const indent = l.match(/^ */)[0].length;
      if (!l.trim()) {
        const then = lines.slice(i + 1).find((x) => x.trim());
        if (then === undefined || then.match(/^ */)[0].length < least) break;
        own.push(''); ownRaw.push('');
      } else if (indent >= least) {
        const cut = Math.min(indent, inner);
        own.push(l.slice(cut)); ownRaw.push(raw ? dedent(raw[i], cut) : l.slice(cut));
      } else if (itemLine.test(l) || startsBlock(l) || own.at(-1) === '') break;
      else { own.push(l.trim()); ownRaw.push(l.trim()); }
    }
    const body = blocksOf(own, ownRaw, depth + 1);
    if (task) {
      const done = task[1] !== ' ';
      node.append(el('li', { class: 'task' }, el('span', { class: 'box' + (done ? ' done' : ''), role: 'img', 'aria-label': done ? 'done' : 'to do' }, done ? '✓' : ''), el('div', {}, body)));
    } else node.append(el('li', {}, body));
    while (i < lines.length && !lines[i].trim() && itemLine.test(lines.slice(i).find((x) => x.trim()) || '')) i++;
  }
  out.push(node);
  return i;
}

function table(lines, i, out) {
  const cells = (l) => l.trim().replace(/^\|/, '').replace(/(?<!\\)\|$/, '').split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, '|'));
  const align = cells(lines[i + 1]).map((c) => (/^:-+:$/.test(c) ? 'center' : /-:$/.test(c) ? 'right' : ''));
  const row = (l, tag) => el('tr', {}, cells(l).slice(0, align.length).map((c, n) => el(tag, { class: align[n], scope: tag === 'th' ? 'col' : null }, inline(c, markdownRules))));
  const head = el('thead', {}, row(lines[i], 'th'));
  const rows = [];
  for (i += 2; i < lines.length && lines[i].trim() && lines[i].includes('|'); i++) rows.push(row(lines[i], 'td'));
  out.push(el('div', { class: 'table', tabindex: 0 }, el('table', {}, head, el('tbody', {}, rows))));
  return i;
}
