// Sorts, filters, selects and draws what the page's own tables hold; it loads nothing.
'use strict';(function(){
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
  .map(function(c){return c.dataset.v!==undefined?c.dataset.v:c.textContent})})}
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
 var bars=document.getElementById(table.id.replace('layers','bars'));
 if(bars&&bars!==table){var of=table.id.replace('layers',''),choose=function(k){[table,bars].forEach(function(place){
   place.querySelectorAll('.chosen').forEach(function(e){e.classList.remove('chosen')});
   var one=place.querySelector('[data-k="'+k+'"]');if(one)one.classList.add('chosen')})};
  function pick(k){choose(k);document.dispatchEvent(new CustomEvent('layer',{detail:[of,k,
   table.querySelector('[data-k="'+k+'"]').cells[0].textContent]}))}
  table.tBodies[0].addEventListener('click',function(e){var r=e.target.closest('tr');if(r)pick(r.dataset.k)});
  bars.addEventListener('click',function(e){var g=e.target.closest('g');if(g)pick(g.dataset.k)});
  document.addEventListener('column',function(e){if(e.detail[0]===of)choose(e.detail[1])})}});
var masks=document.getElementById('masks'),place=document.getElementById('scatter');
if(masks&&place){var names=Array.from(masks.tHead.rows[0].cells).map(function(h){return h.textContent}),pick=[0,1].map(function(n){
  var s=make('select');s.setAttribute('aria-label',n?'vertical':'horizontal');names.forEach(function(name,i){
   if(!Array.from(masks.tBodies[0].rows).some(function(r){return typeof value(r.cells[i])==='number'}))return;
   var o=make('option',name);o.value=i;s.appendChild(o)});s.addEventListener('change',draw);place.appendChild(s);return s});
 pick[1].selectedIndex=Math.min(1,pick[1].options.length-1);
 var ns='http://www.w3.org/2000/svg',svg=document.createElementNS(ns,'svg');svg.setAttribute('width','420');
 svg.setAttribute('height','300');svg.setAttribute('viewBox','0 0 420 300');svg.style.maxWidth='100%';
 place.appendChild(make('br'));place.appendChild(svg);draw()}
function draw(){svg.textContent='';var points=Array.from(masks.tBodies[0].rows).map(function(r){
  return [value(r.cells[pick[0].value]),value(r.cells[pick[1].value]),r.cells[0].textContent]}).filter(function(p){
  return typeof p[0]==='number'&&typeof p[1]==='number'&&isFinite(p[0])&&isFinite(p[1])});
 function scale(n,a,b){var v=points.map(function(p){return p[n]}),lo=Math.min.apply(0,v),hi=Math.max.apply(0,v);
  return function(x){return hi===lo?(a+b)/2:a+(b-a)*(x-lo)/(hi-lo)}}
 var x=scale(0,20,400),y=scale(1,280,20);points.forEach(function(p){var c=document.createElementNS(ns,'circle');
  c.setAttribute('cx',x(p[0]));c.setAttribute('cy',y(p[1]));c.setAttribute('r',5);c.setAttribute('fill','#1c5fa8');
  var t=document.createElementNS(ns,'title');t.textContent=p[2]+': '+p[0]+', '+p[1];c.appendChild(t);svg.appendChild(c)})}
})();
