'use strict';
// Markdown as models write it, built of DOM nodes: what a model wrote becomes text nodes and nothing else, markup of
// HTML is shown as it stands, images are not loaded, and links go nowhere but to the web and to mail. Every text
// node knows where in the source it comes from, so that the tokens of the answer can be told apart in it.

const kFence = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const kHeading = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const kRule = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const kQuote = /^ {0,3}> ?/;
const kItem = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const kTableRule = /^ *\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?$/;
const kPunctuation = /[!-/:-@[-`{-~]/;
const kWord = /[\p{L}\p{N}]/u;
// What is looked for is looked for this far and this deep: no text takes long.
const kReach = 1000, kDepth = 8;

// The lines of source[from, to) as ranges.
function splitLines(source, from, to) {
  const lines = [];
  while (from <= to) {
    let end = source.indexOf('\n', from);
    if (end < 0 || end > to) end = to;
    lines.push({from, to: end});
    from = end + 1;
  }
  return lines;
}

function parseBlocks(source, lines) {
  const text = (i) => source.slice(lines[i].from, lines[i].to);
  const isBlank = (i) => !text(i).trim();
  const isTable = (i) => i + 1 < lines.length && text(i).includes('|') && lines[i + 1].to - lines[i + 1].from < kReach &&
      kTableRule.test(text(i + 1));
  const beginsBlock = (i) => {
    const line = text(i), item = kItem.exec(line);
    return kFence.test(line) || kHeading.test(line) || kRule.test(line) || kQuote.test(line) || isTable(i) ||
        (item && item[3] && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1));
  };
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    if (isBlank(i)) {
      ++i;
      continue;
    }
    const first = i, line = text(i);
    const block = {from: lines[i].from, lines: []};
    let match;
    if ((match = kFence.exec(line))) {
      const fence = match[1];
      const closes = (j) => {
        const trimmed = text(j).trim();
        return trimmed.length >= fence.length && trimmed === fence[0].repeat(trimmed.length);
      };
      block.kind = 'code';
      block.language = match[2].trim().split(/\s/)[0];
      for (++i; i < lines.length && !closes(i); ++i) block.lines.push(lines[i]);
      ++i;
    } else if ((match = kHeading.exec(line))) {
      block.kind = 'heading';
      block.level = match[1].length;
      let end = line.trimEnd().length;
      while (end > match[0].length && line[end - 1] === '#') --end;
      end = line.slice(0, end).trimEnd().length;
      block.lines.push({from: lines[i].from + match[0].length, to: lines[i].from + Math.max(end, match[0].length)});
      ++i;
    } else if (kRule.test(line)) {
      block.kind = 'rule';
      ++i;
    } else if (kQuote.test(line)) {
      block.kind = 'quote';
      for (; i < lines.length && (match = kQuote.exec(text(i))); ++i)
        block.lines.push({from: lines[i].from + match[0].length, to: lines[i].to});
    } else if ((match = kItem.exec(line))) {
      i = parseList(source, lines, i, match, block);
    } else if (isTable(i)) {
      block.kind = 'table';
      block.lines.push(lines[i]);
      for (i += 2; i < lines.length && text(i).includes('|'); ++i) block.lines.push(lines[i]);
    } else {
      block.kind = 'paragraph';
      for (; i < lines.length && !isBlank(i) && (i === first || !beginsBlock(i)); ++i) {
        const lead = /^[ \t]*/.exec(text(i))[0].length;
        block.lines.push({from: lines[i].from + lead, to: lines[i].to});
      }
    }
    block.to = lines[Math.min(i, lines.length) - 1].to;
    blocks.push(block);
  }
  return blocks;
}

// Items of one kind at one indent; what is indented further belongs to the item above. Returns the line behind.
function parseList(source, lines, i, match, block) {
  const text = (j) => source.slice(lines[j].from, lines[j].to);
  const indent = match[1].length, ordered = /\d/.test(match[2]);
  block.kind = 'list';
  block.ordered = ordered;
  block.start = parseInt(match[2], 10);
  block.items = [];
  let offset = 0, afterBlank = false;
  for (; i < lines.length; ++i) {
    const line = text(i), lead = /^ */.exec(line)[0].length;
    if (!line.trim()) {
      afterBlank = true;
      block.items[block.items.length - 1].push({from: lines[i].to, to: lines[i].to});
      continue;
    }
    const item = kItem.exec(line);
    if (block.items.length > 0 && lead > indent + 1) {
      block.items[block.items.length - 1].push({from: lines[i].from + Math.min(lead, offset), to: lines[i].to});
    } else if (item && !kRule.test(line)) {
      if (/\d/.test(item[2]) !== ordered) break;
      offset = item[3].length > 4 ? item[0].length - item[3].length + 1 : item[0].length;
      block.items.push([{from: lines[i].from + offset, to: lines[i].to}]);
    } else if (!afterBlank && !kFence.test(line) && !kHeading.test(line) && !kQuote.test(line) && !kRule.test(line)) {
      block.items[block.items.length - 1].push(lines[i]);
    } else {
      break;
    }
    afterBlank = false;
  }
  return i;
}

// Cells of a table's row as ranges.
function parseCells(source, line) {
  const cells = [];
  let from = line.from, inCode = false;
  for (let i = line.from; i <= line.to; ++i) {
    const c = i < line.to ? source[i] : '|';
    if (c === '\\' && i < line.to) ++i;
    else if (c === '`') inCode = !inCode;
    if (c !== '|' || (inCode && i < line.to)) continue;
    const cell = source.slice(from, i), begin = from + (cell.length - cell.trimStart().length);
    cells.push({from: begin, to: Math.max(begin, from + cell.trimEnd().length)});
    from = i + 1;
  }
  if (cells.length > 0 && cells[0].from >= cells[0].to) cells.shift();
  if (cells.length > 0 && cells[cells.length - 1].from >= cells[cells.length - 1].to) cells.pop();
  return cells;
}

// Shows a text that grows; blocks that have not changed keep their nodes.
class MarkdownView {
  // copy: called with the text of a code block and the button that asked.
  constructor(root, copy) {
    this.root = root;
    this.copy = copy;
    this.shown = [];
    this.ends = [];
  }

  // ends: for each token where in the source it ends; may be empty.
  update(source, ends) {
    this.source = source;
    this.ends = ends;
    const blocks = this.topBlocks();
    let same = 0;
    while (same < blocks.length - 1 && same < this.shown.length - 1 && blocks[same].kind === this.shown[same].kind &&
           blocks[same].to === this.shown[same].to)
      ++same;
    while (this.root.childNodes.length > same) this.root.lastChild.remove();
    for (const block of blocks.slice(same)) this.root.append(this.build(block, 0));
    this.shown = blocks;
  }

  topBlocks() {
    const source = this.source, thinks = /^\s*<think>/.exec(source);
    if (!thinks) return parseBlocks(source, splitLines(source, 0, source.length));
    const from = thinks[0].length;
    let to = source.indexOf('</think>', from), rest = to + '</think>'.length;
    const done = to >= 0;
    if (!done) to = rest = source.length;
    return [{kind: 'thinking', from: 0, to: rest, done, lines: splitLines(source, from, to)},
            ...parseBlocks(source, splitLines(source, rest, source.length))];
  }

  build(block, depth) {
    const make = (tag, ...children) => {
      const node = document.createElement(tag);
      node.append(...children);
      return node;
    };
    const inner = (node, lines) => {
      if (depth >= kDepth) this.inline(node, lines);
      else for (const child of parseBlocks(this.source, lines)) node.append(this.build(child, depth + 1));
      return node;
    };
    switch (block.kind) {
      case 'code': {
        const code = make('code'), button = make('button', 'Copy');
        this.plain(code, block.lines);
        button.type = 'button';
        button.addEventListener('click', () => this.copy(code.textContent, button));
        return make('figure', make('figcaption', make('span', block.language || 'code'), button), make('pre', code));
      }
      case 'heading':  // below the page's own headings
        return this.inline(make('h' + Math.min(block.level + 2, 6)), block.lines);
      case 'rule':
        return make('hr');
      case 'quote':
        return inner(make('blockquote'), block.lines);
      case 'thinking': {
        const node = make('details', make('summary', block.done ? 'Thought' : 'Thinking'));
        node.open = !block.done;
        return inner(node, block.lines);
      }
      case 'list': {
        const node = make(block.ordered ? 'ol' : 'ul');
        if (block.ordered && block.start !== 1) node.start = block.start;
        for (const lines of block.items) {
          const item = inner(make('li'), lines);
          // A paragraph alone needs no space around it.
          if (item.firstChild && item.firstChild.tagName === 'P') item.firstChild.replaceWith(...item.firstChild.childNodes);
          node.append(item);
        }
        return node;
      }
      case 'table': {
        const rows = block.lines.map((line, i) => {
          const row = make('tr');
          for (const cell of parseCells(this.source, line)) row.append(this.inline(make(i === 0 ? 'th' : 'td'), [cell]));
          return row;
        });
        const node = make('div', make('table', make('thead', rows[0]), make('tbody', ...rows.slice(1))));
        node.className = 'table';
        node.tabIndex = 0;
        return node;
      }
    }
    return this.inline(make('p'), block.lines);
  }

  plain(node, lines) {
    const run = new Run(this.source, lines);
    this.text(node, run, 0, run.text.length);
  }

  inline(node, lines) {
    const run = new Run(this.source, lines);
    this.spans(node, run, 0, run.text.length, 0);
    return node;
  }

  // Puts run[from, to) into the node, a span for each token.
  text(node, run, from, to) {
    let low = 0, high = this.ends.length;  // the first token that ends behind `from`
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] > run.places[from]) high = middle;
      else low = middle + 1;
    }
    while (from < to) {
      let end = from;
      while (end < to && (low >= this.ends.length || run.places[end] < this.ends[low])) ++end;
      if (end > from) {
        const piece = document.createTextNode(run.text.slice(from, end));
        if (low < this.ends.length) {
          const span = document.createElement('span');
          span.className = 'token';
          span.dataset.index = low;
          span.append(piece);
          node.append(span);
        } else {
          node.append(piece);
        }
      }
      from = end;
      ++low;
    }
  }

  // Code, emphasis, links and breaks of run[from, to).
  spans(node, run, from, to, depth) {
    const t = run.text;
    let begun = from, i = from;
    const flush = (end) => {
      if (end > begun) this.text(node, run, begun, end);
    };
    // Puts an element in place of [i, next).
    const put = (tag, innerFrom, innerTo, next, isCode) => {
      flush(i);
      const child = document.createElement(tag);
      if (isCode || depth >= kDepth) this.text(child, run, innerFrom, innerTo);
      else this.spans(child, run, innerFrom, innerTo, depth + 1);
      node.append(child);
      begun = i = next;
      return child;
    };
    while (i < to) {
      const c = t[i];
      if (c === '\\' && i + 1 < to && kPunctuation.test(t[i + 1])) {
        flush(i);
        begun = i + 1;
        i += 2;
        continue;
      }
      if (c === '\n') {
        flush(i);
        node.append(document.createElement('br'));
        begun = ++i;
        continue;
      }
      if (c === '`') {
        let n = 1;
        while (i + n < to && t[i + n] === '`') ++n;
        const end = this.findTicks(t, i + n, to, n);
        if (end >= 0) {
          const padded = end - i - n > 2 && t[i + n] === ' ' && t[end - 1] === ' ' ? 1 : 0;
          put('code', i + n + padded, end - padded, end + n, true);
        } else {
          i += n;
        }
        continue;
      }
      if (c === '*' || c === '_' || c === '~') {
        let n = 1;
        while (n < 3 && i + n < to && t[i + n] === c) ++n;
        if (this.emphasis(t, i, from, to, n, put)) continue;
        i += n;
        continue;
      }
      if (c === '[' || (c === '!' && t[i + 1] === '[')) {
        const link = this.findLink(t, c === '!' ? i + 1 : i, to);
        if (link) {
          const href = safeHref(t.slice(link.hrefFrom, link.hrefTo));
          const child = put(href ? 'a' : 'span', link.from, link.to, link.next, false);
          if (href) pointTo(child, href);
          continue;
        }
      }
      if (c === 'h' && (i === from || !kWord.test(t[i - 1]))) {
        const match = /^https?:\/\/[^\s<>"'`)\]]+/.exec(t.slice(i, Math.min(to, i + kReach)));
        const url = match && match[0].replace(/[.,;:!?*_]+$/, '');
        const href = url && safeHref(url);
        if (href) {
          pointTo(put('a', i, i + url.length, i + url.length, true), href);
          continue;
        }
      }
      ++i;
    }
    flush(to);
  }

  emphasis(t, i, from, to, n, put) {
    const c = t[i];
    if (i + n >= to || /\s/.test(t[i + n])) return false;
    if (c === '_' && i > from && kWord.test(t[i - 1])) return false;
    if (c === '~' && n !== 2) return false;
    const mark = c.repeat(n), limit = Math.min(to, i + kReach);
    for (let end = t.indexOf(mark, i + n + 1); end >= 0 && end + n <= limit; end = t.indexOf(mark, end + 1)) {
      if (/\s/.test(t[end - 1]) || t[end - 1] === '\\') continue;
      if (n === 1 && (t[end + 1] === c || t[end - 1] === c)) {  // of a pair of its own
        while (t[end + 1] === c) ++end;
        continue;
      }
      if (c === '_' && end + n < to && kWord.test(t[end + n])) continue;
      const child = put(c === '~' ? 'del' : n === 1 ? 'em' : 'strong', i + n, end, end + n, false);
      if (n === 3) {
        const em = document.createElement('em');
        em.append(...child.childNodes);
        child.append(em);
      }
      return true;
    }
    return false;
  }

  // Where n backquotes stand alone; -1: nowhere near.
  findTicks(t, from, to, n) {
    const limit = Math.min(to, from + kReach);
    for (let i = from; i < limit; ++i) {
      if (t[i] !== '`') continue;
      let m = 1;
      while (i + m < to && t[i + m] === '`') ++m;
      if (m === n) return i;
      i += m - 1;
    }
    return -1;
  }

  // "[text](href)" at i.
  findLink(t, i, to) {
    const limit = Math.min(to, i + kReach);
    let depth = 0, close = i;
    for (; close < limit; ++close) {
      if (t[close] === '\\') ++close;
      else if (t[close] === '[') ++depth;
      else if (t[close] === ']' && --depth === 0) break;
    }
    if (close + 1 >= limit || t[close + 1] !== '(') return null;
    let end = close + 2, open = 1;
    for (; end < limit && !/\n/.test(t[end]); ++end) {
      if (t[end] === '(') ++open;
      else if (t[end] === ')' && --open === 0) break;
    }
    if (t[end] !== ')' || end >= limit) return null;
    const title = t.slice(close + 2, end).search(/\s/);
    return {from: i + 1, to: close, hrefFrom: close + 2, hrefTo: title < 0 ? end : close + 2 + title, next: end + 1};
  }
}

// Text of several lines, and where in the source each of its characters is.
class Run {
  constructor(source, lines) {
    this.text = lines.map((line) => source.slice(line.from, line.to)).join('\n');
    this.places = [];
    for (const line of lines) for (let i = line.from; i <= line.to; ++i) this.places.push(i);
  }
}

// An address that may be followed, or null.
function safeHref(text) {
  try {
    const url = new URL(text);
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function pointTo(link, href) {
  link.href = href;
  link.target = '_blank';
  link.rel = 'noopener noreferrer';
}
