// The few things every part of the page does with the document. Text is only ever text.

export const find = (selector, root = document) => root.querySelector(selector);

// An element with attributes and children; strings become text, never markup.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// Touches the document only when something changed, so focus and selection stay where they are.
export function say(node, text) {
  const words = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== words) node.textContent = words;
}

export function setAttribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// The children of a list by key: kept, moved, made or removed. `fill(node, item)` writes one.
export function keyed(parent, items, { key, create, fill }) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, index) => {
    const name = String(key(item));
    let node = old.get(name);
    old.delete(name);
    if (!node) {
      node = create(item);
      node.dataset.key = name;
    }
    fill(node, item);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > items.length) parent.lastElementChild.remove();
}

// Figures under their names: [[name, value, note?]] as a description list.
export function facts(list, rows) {
  keyed(list, rows, {
    key: ([name]) => name,
    create: ([name]) => make("div", {}, make("dt", {}, name), make("dd", {}, make("b"), make("small"))),
    fill: (node, [, value, note]) => {
      say(find("b", node), value);
      say(find("small", node), note ?? "");
    },
  });
}

// Options of a <select>; keeps the choice. rows: [[value, text]].
export function options(select, rows, chosen) {
  keyed(select, rows, {
    key: ([value]) => value,
    create: ([value]) => make("option", { value }),
    fill: (node, [, text]) => say(node, text),
  });
  if (chosen !== undefined && select.value !== String(chosen)) select.value = String(chosen);
  select.disabled = rows.length < 2;
}
