// Sorts, filters, selects and draws what the page's own tables hold; it loads nothing.
'use strict';(function(){
var ns='http://www.w3.org/2000/svg';
function make(tag,text){var e=document.createElement(tag);if(text!==undefined)e.textContent=text;return e}
function value(cell){var v=cell.dataset.v;if(v===undefined)return cell.textContent.toLowerCase();
 if(v===''||v==='nan')return null;if(/^-?\d{16,}$/.test(v))return BigInt(v);
 var n=Number(v);return isNaN(n)?v.toLowerCase():n}
function sort(table,column,down){var body=table.tBodies[0],rows=Array.from(body.rows).map(function(r,i){
  return {r:r,i:i,v:value(r.cells[column])}});
 rows.sort(function(a,b){if(a.v===null||b.v===null)return (a.v===null)-(b.v===null)||a.i-b.i;
  var x=typeof a.v==='string',y=typeof b.v==='string',s=x===y?(a.v<b.v?-1:a.v>b.v?1:0):x?1:-1;return (down?-s:s)||a.i-b.i});
 rows.forEach(function(x){body.appendChild(x.r)});
 Array.from(table.tHead.rows[0].cells).forEach(function(h,i){
  if(i===column)h.setAttribute('aria-sort',down?'descending':'ascending');else h.removeAttribute('aria-sort')})}
function shownRows(table){var heads=Array.from(table.tHead.rows[0].cells),keep=heads.map(function(h){return !h.hidden});
 return [heads].concat(Array.from(table.tBodies[0].rows).filter(function(r){return !r.hidden}).map(function(r){
  return Array.from(r.cells)})).map(function(cells){return cells.filter(function(c,i){return keep[i]})
  .map(function(c){return c.dataset.v!==undefined&&!c.classList.contains('pm')?c.dataset.v:c.textContent})})}
function csv(rows){return rows.map(function(r){return r.map(function(c){
 return /[",\n]/.test(c)?'"'+c.replace(/"/g,'""')+'"':c}).join(',')}).join('\n')+'\n'}
function latex(rows){function esc(c){return c.replace(/\\/g,'\\textbackslash ').replace(/[&%$#_{}]/g,'\\$&')}
 return '\\begin{tabular}{'+'l'.repeat(rows[0].length)+'}\n\\toprule\n'+rows.map(function(r,i){
 return r.map(esc).join(' & ')+' \\\\'+(i===0?'\n\\midrule':'')}).join('\n')+'\n\\bottomrule\n\\end{tabular}\n'}
document.querySelectorAll('table.data').forEach(function(table){
 var heads=Array.from(table.tHead.rows[0].cells),tools=table.parentNode.previousElementSibling;
 heads.forEach(function(head,column){head.tabIndex=0;function go(){sort(table,column,head.getAttribute('aria-sort')==='ascending')}
  head.addEventListener('click',go);head.addEventListener('keydown',function(e){
   if(e.key==='Enter'||e.key===' '){e.preventDefault();go()}})});
 var find=make('input');find.placeholder='filter';find.setAttribute('aria-label','filter '+table.id);
 find.addEventListener('input',function(){var word=find.value.toLowerCase();Array.from(table.tBodies[0].rows).forEach(function(r){
  r.hidden=r.textContent.toLowerCase().indexOf(word)<0})});tools.appendChild(find);
 var box=make('textarea');box.hidden=true;box.readOnly=true;
 [['CSV',csv],['LaTeX',latex]].forEach(function(kind){var b=make('button',kind[0]);b.addEventListener('click',function(){
  box.hidden=false;box.value=kind[1](shownRows(table));box.select()});tools.appendChild(b)});
 if(heads.length>6){var more=make('details');more.appendChild(make('summary','columns'));
  heads.forEach(function(head,column){if(!column)return;var label=make('label'),tick=make('input');tick.type='checkbox';
   tick.checked=true;tick.addEventListener('change',function(){head.hidden=!tick.checked;
    Array.from(table.tBodies[0].rows).forEach(function(r){r.cells[column].hidden=!tick.checked})});
   label.appendChild(tick);label.appendChild(document.createTextNode(head.textContent+' '));more.appendChild(label)});
  tools.appendChild(more)}
 tools.appendChild(box);
 if(/^layers\d/.test(table.id)){var of=table.id.replace('layers',''),
  drawn=Array.from(document.querySelectorAll('svg[data-layers="'+of+'"]')),choose=function(k){[table].concat(drawn).forEach(function(place){
   place.querySelectorAll('.chosen').forEach(function(e){e.classList.remove('chosen')});
   var one=place.querySelector('[data-k="'+k+'"]');if(one)one.classList.add('chosen')})};
  function pick(k){choose(k);document.dispatchEvent(new CustomEvent('layer',{detail:[of,k,
   table.querySelector('[data-k="'+k+'"]').cells[0].textContent]}))}
  table.tBodies[0].addEventListener('click',function(e){var r=e.target.closest('tr');if(r)pick(r.dataset.k)});
  drawn.forEach(function(svg){svg.addEventListener('click',function(e){var g=e.target.closest('g');if(g)pick(g.dataset.k)})});
  document.addEventListener('column',function(e){if(e.detail[0]===of)choose(e.detail[1])})}});
function save(svg,name){var copy=svg.cloneNode(true),look=document.createElementNS(ns,'style');copy.setAttribute('xmlns',ns);
 look.textContent=document.querySelector('style').textContent.replace(/var\(--line\)/g,'#8885').replace(/@media[^]*$/,'');
 copy.insertBefore(look,copy.firstChild);var a=make('a');
 a.href=URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)],{type:'image/svg+xml'}));a.download=name+'.svg';a.click()}
document.querySelectorAll('.figure svg').forEach(function(svg){var b=make('button','SVG');b.setAttribute('aria-label','save '+svg.id+' as SVG');
 b.addEventListener('click',function(){save(svg,svg.id.replace(/\d+$/,''))});svg.parentNode.previousElementSibling.appendChild(b)});
var masks=document.getElementById('masks'),place=document.getElementById('scatter'),inks=['#1c5fa8','#c44e00','#2a8a57','#7a4fa3','#8a6d00','#b0306a'];
if(masks){var heads=Array.from(masks.tHead.rows[0].cells),names=heads.map(function(h){return h.textContent}),lines=Array.from(masks.tBodies[0].rows),
  numeric=names.map(function(n,i){return lines.some(function(r){return !isNaN(number(r.cells[i]))})}),
  first=heads.findIndex(function(h){return h.dataset.m!==undefined});if(first<0)first=names.length;
 scatter();regroup()}
// A cell's number as a double; NaN where it holds none.
function number(cell){var v=value(cell);return typeof v==='bigint'?Number(v):typeof v==='number'?v:NaN}
// A scatter of any two numbers; a colour for each method, or other column of words.
function scatter(){var pick=[['effective_nodes','effective_params'],['log10_effective_paths','density']].map(function(liked,n){
  var s=make('select');s.setAttribute('aria-label',n?'vertical':'horizontal');names.forEach(function(name,i){
   if(!numeric[i])return;var o=make('option',name);o.value=i;s.appendChild(o)});
  liked.some(function(name){return names.indexOf(name)>0&&numeric[names.indexOf(name)]&&(s.value=names.indexOf(name))});
  s.addEventListener('change',draw);place.appendChild(s);return s});
 var ink=make('select');ink.setAttribute('aria-label','colour');ink.appendChild(make('option','one colour'));
 names.forEach(function(name,i){if(i&&i<first&&name!=='sha256'){var o=make('option',name);o.value=i;ink.appendChild(o);if(name==='method')ink.value=i}});
 ink.addEventListener('change',draw);place.appendChild(ink);
 var svg=document.createElementNS(ns,'svg');svg.id='dots';svg.setAttribute('width','560');svg.setAttribute('height','340');
 svg.setAttribute('viewBox','0 0 560 340');var b=make('button','SVG');b.setAttribute('aria-label','save the scatter as SVG');
 b.addEventListener('click',function(){save(svg,'scatter')});place.appendChild(b);place.appendChild(make('br'));place.appendChild(svg);draw();
 function el(tag,given,text){var e=document.createElementNS(ns,tag);for(var k in given)e.setAttribute(k,given[k]);if(text!==undefined)e.textContent=text;svg.appendChild(e);return e}
 function short(v){return Math.abs(v)>=1e6||(v&&Math.abs(v)<1e-3)?v.toExponential(2):String(+v.toPrecision(4))}
 function draw(){svg.textContent='';var points=lines.map(function(r){return [number(r.cells[pick[0].value]),number(r.cells[pick[1].value]),
   r.cells[0].textContent,ink.selectedIndex?r.cells[ink.value].textContent:'']}).filter(function(p){return isFinite(p[0])&&isFinite(p[1])});
  if(points.length<lines.length)el('text',{'class':'tick left',x:84,y:338},(lines.length-points.length)+' of '+lines.length+' masks are not drawn: no finite number here');
  if(!points.length)return;
  var kinds=Array.from(new Set(points.map(function(p){return p[3]})));
  function scale(n,a,b){var v=points.map(function(p){return p[n]}),lo=Math.min.apply(0,v),hi=Math.max.apply(0,v);
   [lo,hi].forEach(function(t,k){if(k&&hi===lo)return;var at=hi===lo?(a+b)/2:k?b:a;
    el('text',n?{'class':'tick',x:72,y:at+4}:{'class':'tick mid',x:at,y:308},short(t))});
   return function(x){return hi===lo?(a+b)/2:a+(b-a)*(x-lo)/(hi-lo)}}
  el('path',{'class':'axis',d:'M80 10V294H420'});
  el('text',{'class':'tick mid',x:250,y:328},names[pick[0].value]);
  el('text',{'class':'tick mid',transform:'translate(14 152) rotate(-90)'},names[pick[1].value]);
  var x=scale(0,96,404),y=scale(1,280,20);
  points.forEach(function(p){var c=el('circle',{cx:x(p[0]),cy:y(p[1]),r:5,fill:inks[kinds.indexOf(p[3])%inks.length],'fill-opacity':.8}),
   t=document.createElementNS(ns,'title');t.textContent=p[2]+': '+p[0]+', '+p[1];c.appendChild(t)});
  if(ink.selectedIndex)kinds.slice(0,12).forEach(function(k,i){el('rect',{x:432,y:14+20*i,width:10,height:10,fill:inks[i%inks.length]});
   el('text',{'class':'tick left',x:448,y:23+20*i},k.length>18?k.slice(0,17)+'\u2026':k)})}}
// Means over the masks that are equal in chosen columns; the page itself holds those of method and density.
function regroup(){var table=document.getElementById('grouped');if(!table)return;var tools=table.parentNode.previousElementSibling,
  own=Array.from(table.tHead.rows[0].cells),keys=own.findIndex(function(h){return h.textContent==='masks'}),shown=names.slice(1,first).filter(function(n){
   return n!=='sha256'}),box=make('details'),ticks=[],before=Array.from(table.tBodies[0].rows);box.appendChild(make('summary','group by'));
 shown.forEach(function(name){var l=make('label'),b=make('input');b.type='checkbox';b.setAttribute('aria-label','group by '+name);
  b.checked=own.slice(0,keys).some(function(h){return h.textContent===name});b.addEventListener('change',build);ticks.push([b,name]);
  l.appendChild(b);l.appendChild(document.createTextNode(name+' '));box.appendChild(l)});tools.appendChild(box);
 function build(){var by=ticks.filter(function(t){return t[0].checked}).map(function(t){return t[1]}),at=by.map(function(n){return names.indexOf(n)}),
   groups=new Map(),body=table.tBodies[0],metrics=own.slice(keys+1).map(function(h){return names.indexOf(h.textContent)});body.textContent='';
  own.slice(0,keys).forEach(function(h,i){h.textContent=i?'':by.join(', ')||'all'});
  if(by.join()===JSON.parse(table.dataset.by).join()){own.slice(0,keys).forEach(function(h,i){h.textContent=by[i]});before.forEach(function(r){body.appendChild(r)});return}
  lines.forEach(function(r){var k=JSON.stringify(at.map(function(i){var c=r.cells[i];return c.dataset.v===undefined?c.textContent:c.dataset.v}));
   if(!groups.has(k))groups.set(k,[]);groups.get(k).push(r)});
  groups.forEach(function(rows,k){var tr=make('tr'),c,said=at.map(function(i,j){var c=rows[0].cells[i],exact=JSON.parse(k)[j];
   return c.dataset.v===undefined||+c.textContent===+exact?c.textContent:exact}).join(', ');for(var i=0;i<keys;i++)tr.appendChild(make('td',i?'':said));
   c=make('td',String(rows.length));c.className='n';c.dataset.v=rows.length;tr.appendChild(c);
   metrics.forEach(function(m){var v=rows.map(function(r){return number(r.cells[m])}).filter(isFinite),n=v.length,
    mean=v.reduce(function(a,b){return a+b},0)/n,sd=Math.sqrt(v.reduce(function(a,b){return a+(b-mean)*(b-mean)},0)/(n-1));c=make('td');c.className='n pm';
    c.dataset.v=n?mean:'';c.textContent=n?+mean.toPrecision(5)+(sd>0?' (sd '+ +sd.toPrecision(3)+')':''):'';tr.appendChild(c)});
   body.appendChild(tr)})}}
})();
