'use strict';
const make = (tag, text, ...inside) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...inside);
  return node;
};
const json = value => make('pre', JSON.stringify(value, null, 2));
const name = schema => (schema.$ref || '').split('/').pop();
const link = schema => {
  if (!schema || !schema.$ref) return json(schema || {});
  const anchor = make('a', name(schema));
  anchor.href = '#schema-' + name(schema);
  return make('p', '', anchor);
};
const table = parameters => {
  const rows = parameters.map(p => make('tr', '', make('td', '', make('code', p.name)), make('td', p.in),
    make('td', (p.required ? 'needed. ' : '') + (p.description || ''))));
  return make('table', '', ...rows);
};
const operation = (method, path, spec, components) => {
  const head = make('summary', '', make('span', method.toUpperCase()), make('code', path),
    make('span', ' ' + spec.summary));
  head.firstChild.className = 'method';
  const box = make('details', '', head);
  const parameters = (spec.parameters || []).map(p => p.$ref ? components.parameters[name(p)] : p);
  if (parameters.length) box.append(make('h4', 'Parameters'), table(parameters));
  if (spec.requestBody) {
    const content = Object.entries(spec.requestBody.content);
    box.append(make('h4', 'Body (' + content.map(([type]) => type).join(', ') + ')'), link(content[0][1].schema));
  }
  box.append(make('h4', 'Answers'));
  for (const [status, answer] of Object.entries(spec.responses)) {
    const found = answer.$ref ? components.responses[name(answer)] : answer;
    const content = Object.entries(found.content || {});
    box.append(make('div', status + ' ' + found.description), ...content.filter(([, c]) => c.schema && c.schema.$ref)
      .map(([, c]) => link(c.schema)));
  }
  return box;
};
fetch('/openapi.json').then(answer => answer.json()).then(api => {
  document.getElementById('title').textContent = api.info.title + ' ' + api.info.version;
  document.getElementById('about').textContent = api.info.description;
  const main = document.getElementById('paths');
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, spec] of Object.entries(methods)) main.append(operation(method, path, spec, api.components));
  const schemas = document.getElementById('schemas');
  for (const [title, schema] of Object.entries(api.components.schemas)) {
    const box = make('details', '', make('summary', title), json(schema));
    box.id = 'schema-' + title;
    schemas.append(box);
  }
  document.getElementById('find').addEventListener('input', event => {
    for (const box of main.children)
      box.hidden = !box.firstChild.textContent.toLowerCase().includes(event.target.value.toLowerCase());
  });
  addEventListener('hashchange', () => {
    const box = document.getElementById(location.hash.slice(1));
    if (box) box.open = true;
  });
});
