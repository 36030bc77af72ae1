// Builds the page and brings it up to date without a framework: h() makes elements, fill() changes what differs and leaves the rest alone.
// Data never becomes markup: children are nodes or text, and every attribute is set by name.

const HANDLERS = Symbol("handlers");
const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `on` holds listeners, `style` CSS properties, `key` tells siblings apart, `own` leaves its children to others. */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") listen(element, value);
    else if (name === "style")
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else if (name === "key" || name === "own") element[name] = value;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    parent.append(child instanceof Node ? child : String(child));
  }
}

// One listener per kind looks the present handler up, so that fill() can hand an element on to a newer handler.
function listen(element, handlers) {
  const known = element[HANDLERS];
  element[HANDLERS] = handlers;
  for (const kind of Object.keys(handlers)) {
    if (known && kind in known) continue;
    element.addEventListener(kind, event => element[HANDLERS][kind]?.(event));
  }
}

/** Makes `parent` hold exactly these children, keeping every element that can stay: with it stay focus, scroll and selection. */
export function fill(parent, ...children) {
  const wanted = document.createDocumentFragment();
  append(wanted, children);
  reconcile(parent, [...wanted.childNodes]);
}

function reconcile(parent, wanted) {
  const keyed = new Map();
  const loose = [];
  for (const node of parent.childNodes) {
    if (node.key !== undefined) keyed.set(node.key, node);
    else loose.push(node);
  }
  const matches = wanted.map(node => match(node, keyed, loose));
  // What goes must go first: moving a node around another one would take the focus from it.
  const staying = new Set(matches);
  for (const node of [...parent.childNodes]) if (!staying.has(node)) node.remove();
  let place = parent.firstChild;
  wanted.forEach((node, index) => {
    const old = matches[index];
    if (!old) {
      parent.insertBefore(node, place);
      return;
    }
    if (old === place) place = place.nextSibling;
    else parent.insertBefore(old, place);
    if (old !== node) update(old, node);
  });
}

function match(node, keyed, loose) {
  if (node.key !== undefined) {
    const old = keyed.get(node.key);
    keyed.delete(node.key);
    return old?.nodeName === node.nodeName ? old : null;
  }
  const index = loose.findIndex(old => old.nodeName === node.nodeName);
  return index < 0 ? null : loose.splice(index, 1)[0];
}

function update(old, node) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // `style` is refused as an attribute by the Content-Security-Policy; `open` belongs to who opened it.
    if (!node.hasAttribute(name) && name !== "style" && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (name !== "style" && name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.style.cssText !== node.style.cssText) old.style.cssText = node.style.cssText;
  listen(old, node[HANDLERS] ?? {});
  if ("disabled" in old) old.disabled = node.disabled;
  if (!old.own) reconcile(old, [...node.childNodes]);
}

/** Adds listeners to an element that was made elsewhere, and takes them back when `signal` aborts. */
export function hear(target, kind, handler, signal) {
  target.addEventListener(kind, handler, { signal });
}
