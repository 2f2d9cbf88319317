// The graph of a network, drawn from the page's own JSON: zoom, pan, light the paths through a unit or a layer, and show
// the fewest units that carry a share of the paths. It loads nothing.
(function(){
var NS='http://www.w3.org/2000/svg',LOOK='.line{fill:none;stroke:#1c5fa8;stroke-width:.7}.off{stroke:#c44e00;stroke-dasharray:2 2}'+
'.skip{stroke:#8a8a8a}.lit{fill:none;stroke:#c98f00}.dot{fill:#1c5fa8;stroke:#1c5fa8;stroke-width:.6}'+
'.alone{fill:#c98f00;stroke:#c98f00}.dead{fill:none;stroke:#8a8a8a}.few{fill-opacity:.08;stroke-opacity:.25}.several{stroke-dasharray:2 1}.on{stroke:#d9a400;stroke-width:2}'+
'.dim .line{opacity:.25}.name{font:10px sans-serif;fill:currentColor}.hit{fill:transparent;cursor:pointer}.hit.on{fill:#d9a40033}.dot{cursor:pointer}';
function make(tag,text){var e=document.createElement(tag);if(text!==undefined)e.textContent=text;return e}
function el(tag,given,inside){var e=document.createElementNS(NS,tag);for(var k in given)e.setAttribute(k,given[k]);inside.appendChild(e);return e}
function many(n,one){return n.toLocaleString('en')+' '+one+(n===1?'':'s')}
function share(x){return (x<1&&x>=.9995?'over 99.9':String(+(100*x).toPrecision(3)))+' %'}
document.querySelectorAll('script[data-graph]').forEach(function(data){
 var g=JSON.parse(data.textContent),place=data.dataset.graph,host=document.getElementById('graph'+place);
 var W=Math.max(320,Math.min(1140,host.clientWidth||1000)),H=W<600?420:480,foot=96,deepest=0,sets=[],lanes={},x=[],y=[],r=[];
 g.columns.forEach(function(c,i){deepest=Math.max(deepest,c.depth);sets.push([]);(lanes[c.depth]=lanes[c.depth]||[]).push(i)});
 g.dots.forEach(function(d,i){sets[d[0]].push(i)});
 var step=deepest?(W-70)/deepest:0,mid=[];
 g.columns.forEach(function(c,i){var lane=lanes[c.depth],high=(H-foot-20)/lane.length,top=20+lane.indexOf(i)*high,n=sets[i].length,
   gap=Math.min(14,0.92*high/Math.max(n,1));mid[i]=top+high/2;
  sets[i].forEach(function(d,k){var side=k%2?-1:1;x[d]=30+c.depth*step;y[d]=mid[i]+side*gap*Math.ceil(k/2)+(n%2?0:gap/2);
   r[d]=Math.max(.5,Math.min(5,.3*(step||20),.42*gap))})});
 // Lines, all in one list.
 var from=[],to=[],level=[],link=[];
 g.links.forEach(function(l,i){for(var k=0;k<l.lines.length;k+=3){from.push(l.lines[k]);to.push(l.lines[k+1]);level.push(l.lines[k+2]);link.push(i)}});
 var ahead=[],behind=[];g.dots.forEach(function(){ahead.push([]);behind.push([])});
 from.forEach(function(a,e){if(level[e]){ahead[a].push(e);behind[to[e]].push(e)}});
 host.textContent='';
 var svg=el('svg',{viewBox:'0 0 '+W+' '+H,width:W,height:H,tabindex:0,role:'img'},host);
 svg.setAttribute('aria-label','graph of the network; arrow keys choose a layer or unit, plus and minus zoom, 0 shows all, Escape puts out');
 el('style',{},svg).textContent=LOOK;
 var lines=el('g',{},svg),glow=el('g',{'class':'lit'},svg),hits=el('g',{},svg),dots=el('g',{},svg),names=el('g',{},svg),boxes=[],marks=[];
 var every=Math.max(1,Math.ceil(11/(step||11)));
 g.columns.forEach(function(c,i){var wide=Math.max(2,Math.min(step||40,40)),lane=lanes[c.depth],high=(H-foot)/lane.length;
  boxes.push(el('rect',{'class':'hit',x:30+c.depth*step-wide/2,y:8+lane.indexOf(i)*high,width:wide,height:high,'data-c':i},hits));
  el('title',{},boxes[i]).textContent=about(i);
  if(lane[0]===i&&c.depth%every===0){var t=el('text',{'class':'name','text-anchor':'end',
    transform:'translate('+(30+c.depth*step+3)+' '+(H-foot+14)+') rotate(-50)'},names);
   t.textContent=(c.name.length>18?'…'+c.name.slice(-17):c.name)+(lane.length>1?' +'+(lane.length-1):'')}});
 g.dots.forEach(function(d,i){var top=g.dots[sets[d[0]][0]][4]||1;
  marks.push(el('circle',{cx:x[i].toFixed(2),cy:y[i].toFixed(2),r:r[i].toFixed(2),'data-d':i,
   'class':'dot'+(d[3]?d[7]?' alone':'':' dead')+(d[1]<0?' several':''),'fill-opacity':d[3]?(.25+.75*Math.sqrt(d[4]/top)).toFixed(2):0},dots))});
 function about(i){var c=g.columns[i];return c.name+': '+c.live.toLocaleString('en')+' of '+many(c.units,'unit')+' live'+
  (c.by_skip?' ('+c.by_skip.toLocaleString('en')+' by the skip alone)':'')+'; '+
  c.fewest[g.stops.indexOf(90)].toLocaleString('en')+' carry 90 % of its paths'}
 function told(i){var d=g.dots[i],c=g.columns[d[0]];return c.name+(d[1]<0?', '+many(d[2],'unit')+' together, '+d[3]+' live':', unit '+d[1])+
  (d[3]?': '+share(d[4])+' of all paths':': dead')+(d[7]?' ('+(d[1]<0?d[7].toLocaleString('en')+' ':'')+'by the skip alone)':'')+'; fan-in '+d[5].toLocaleString('en')+', fan-out '+d[6].toLocaleString('en')}
 // Controls.
 var tools=host.previousElementSibling,said=make('output'),slider=make('input'),count=make('span');said.className='said';
 function button(text,label,act){var b=make('button',text);b.setAttribute('aria-label',label);b.addEventListener('click',act);tools.appendChild(b);return b}
 function tick(text,on){var l=make('label'),b=make('input');b.type='checkbox';b.checked=on;b.setAttribute('aria-label',text+' '+place);
  b.addEventListener('change',draw);l.appendChild(b);l.appendChild(document.createTextNode(' '+text));tools.appendChild(l);return b}
 button('+','zoom in',function(){zoom(1/1.5)});button('−','zoom out',function(){zoom(1.5)});button('all','show all',function(){view=[0,0,W,H];look()});
 var hollow=tick('dead units',true),off=tick('kept, on no path',true),skips=tick('skips',true);
 slider.type='range';slider.min=0;slider.max=g.stops.length-1;slider.step=1;slider.value=slider.max;
 slider.setAttribute('aria-label','share of the paths that is drawn '+place);slider.addEventListener('input',draw);
 var label=make('label','paths drawn ');label.appendChild(slider);tools.appendChild(label);tools.appendChild(count);
 button('SVG','save the picture as SVG',function(){var a=make('a');
  a.href=URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(svg)],{type:'image/svg+xml'}));a.download='graph.svg';a.click()});
 host.parentNode.insertBefore(said,host.nextSibling);said.textContent='Click a unit, or a layer, to light its paths.';
 // What is drawn.
 var kept=[],chosen=null;
 function draw(){var stop=+slider.value,units=0,live=0,d,few=[];
  sets.forEach(function(set,i){var n=g.columns[i].fewest[stop],seen=0,all=stop===g.stops.length-1;units+=n;live+=g.columns[i].live;
   set.forEach(function(k){few[k]=!all&&(seen>=n||!g.dots[k][3]);seen+=g.dots[k][3]})});
  kept=few;marks.forEach(function(m,i){d=g.dots[i];m.classList.toggle('few',few[i]);
   m.setAttribute('display',!d[3]&&!hollow.checked?'none':'inline')});
  count.textContent=g.stops[stop]+' %: the fewest units of each layer that carry it, '+units.toLocaleString('en')+' of '+live.toLocaleString('en')+' live';
  var parts={};from.forEach(function(a,e){var l=g.links[link[e]],b=to[e];
   if(few[a]||few[b]||(!level[e]&&!off.checked)||(l.skip&&!skips.checked))return;
   var kind=(level[e]?'':'off ')+(l.skip?'skip ':'')+'line|'+level[e];(parts[kind]=parts[kind]||[]).push(stroke(a,b))});
  lines.textContent='';var thin=from.length>4000?.6:1;Object.keys(parts).sort().forEach(function(kind){var k=kind.split('|');
   el('path',{'class':k[0],d:parts[kind].join(''),'stroke-opacity':(k[1]==='0'?.35:(.06+.08*k[1])*thin).toFixed(2)},lines)});
  if(chosen)light(chosen.ahead,chosen.behind,chosen.own,chosen.text)}
 function stroke(a,b){var gap=g.columns[g.dots[b][0]].depth-g.columns[g.dots[a][0]].depth,p='M'+x[a].toFixed(1)+' '+y[a].toFixed(1);
  return gap===1?p+'L'+x[b].toFixed(1)+' '+y[b].toFixed(1):p+'Q'+((x[a]+x[b])/2).toFixed(1)+' '+
   (Math.min(y[a],y[b])-20-6*Math.min(gap,8)).toFixed(1)+' '+x[b].toFixed(1)+' '+y[b].toFixed(1)}
 function reach(seeds,edges,ends){var seen=new Set(seeds),left=seeds.slice();while(left.length){edges[left.pop()].forEach(function(e){
   var d=ends[e];if(!seen.has(d)){seen.add(d);left.push(d)}})}return seen}
 // All lines on paths through what is chosen: those ahead of it, those behind it, and its own.
 function light(fore,back,own,text){var A=reach(fore,ahead,to),B=reach(back,behind,from),by=[],n=0,lit=0,mine=new Set(own),merged=false;
  from.forEach(function(a,e){if(level[e]&&(A.has(a)||B.has(to[e])||mine.has(e))&&!kept[a]&&!kept[to[e]]){(by[level[e]]=by[level[e]]||[]).push(stroke(a,to[e]));n++}});
  glow.textContent='';svg.classList.add('dim');by.forEach(function(d,l){var ink=n>1500?.05+.07*l:.5+.05*l;
   el('path',{d:d.join(''),'stroke-opacity':ink.toFixed(2),'stroke-width':n>1500?.7:1.2},glow)});
  marks.forEach(function(m,i){var on=(A.has(i)||B.has(i))&&!!g.dots[i][3];m.classList.toggle('on',on);lit+=on;
   merged=merged||(on&&g.dots[i][1]<0)});
  chosen={ahead:fore,behind:back,own:own,text:text};
  said.textContent=text+(n?'. Lit: '+many(n,'line')+' and '+many(lit,'dot')+' on paths through it.':'. No path passes through it.')+
   (merged&&n?' A dashed dot is several units: what is lit passes one of them.':'')}
 function out(){chosen=null;glow.textContent='';svg.classList.remove('dim');marks.concat(boxes).forEach(function(m){m.classList.remove('on')});
  at=[-1,-1];said.textContent='Click a unit, or a layer, to light its paths.'}
 var at=[-1,-1];
 function unit(i){boxes.forEach(function(b){b.classList.remove('on')});at=[g.dots[i][0],sets[g.dots[i][0]].indexOf(i)];light([i],[i],[],told(i))}
 function column(i,quiet){var all=sets[i].filter(function(d){return g.dots[d][3]});at=[i,-1];light(all,all,[],about(i));
  boxes.forEach(function(b,k){b.classList.toggle('on',k===i)});
  if(!quiet){var own=g.links.filter(function(l){return l.to===i&&l.k>=0})[0];
   if(own)document.dispatchEvent(new CustomEvent('column',{detail:[place,own.k]}))}}
 document.addEventListener('layer',function(e){if(e.detail[0]!==place)return;var k=+e.detail[1],own=[],fore=[],back=[],ends=new Set();
  from.forEach(function(a,n){var l=g.links[link[n]];if(l.k===k){ends.add(l.to);if(level[n]){own.push(n);fore.push(to[n]);back.push(a)}}});
  boxes.forEach(function(b,i){b.classList.toggle('on',ends.has(i))});light(fore,back,own,'layer '+e.detail[2])});
 // Zoom and pan.
 var view=[0,0,W,H],held=new Map(),moved=0;
 function look(){svg.setAttribute('viewBox',view.map(function(v){return v.toFixed(2)}).join(' '));svg.style.touchAction=view[2]<W?'none':'pan-y'}
 function point(e){var box=svg.getBoundingClientRect();return [view[0]+view[2]*(e.clientX-box.left)/box.width,view[1]+view[3]*(e.clientY-box.top)/box.height]}
 function zoom(by,p){p=p||[view[0]+view[2]/2,view[1]+view[3]/2];by=Math.min(by,W/view[2]);by=Math.max(by,W/60/view[2]);
  view=[p[0]-(p[0]-view[0])*by,p[1]-(p[1]-view[1])*by,view[2]*by,view[3]*by];inside()}
 function inside(){view[0]=Math.max(0,Math.min(W-view[2],view[0]));view[1]=Math.max(0,Math.min(H-view[3],view[1]));look()}
 svg.addEventListener('wheel',function(e){if(!e.ctrlKey&&document.activeElement!==svg)return;e.preventDefault();zoom(e.deltaY<0?1/1.2:1.2,point(e))},{passive:false});
 svg.addEventListener('pointerdown',function(e){held.set(e.pointerId,[e.clientX,e.clientY]);moved=0});
 svg.addEventListener('pointermove',function(e){
  var t=e.target.dataset;if(!held.size){if(!chosen)said.textContent=t.d!==undefined?told(+t.d):t.c!==undefined?about(+t.c):said.textContent;return}
  var p=held.get(e.pointerId);if(!p)return;var box=svg.getBoundingClientRect(),q=[e.clientX,e.clientY];moved+=Math.abs(q[0]-p[0])+Math.abs(q[1]-p[1]);
  if(held.size===2){var other=Array.from(held.entries()).filter(function(h){return h[0]!==e.pointerId})[0][1];
   zoom(Math.hypot(p[0]-other[0],p[1]-other[1])/Math.max(1,Math.hypot(q[0]-other[0],q[1]-other[1])),point(e))}
  else{view[0]-=(q[0]-p[0])*view[2]/box.width;view[1]-=(q[1]-p[1])*view[3]/box.height;inside()}
  held.set(e.pointerId,q)});
 ['pointerup','pointercancel','pointerleave'].forEach(function(name){svg.addEventListener(name,function(e){held.delete(e.pointerId)})});
 svg.addEventListener('click',function(e){if(moved>6)return;var t=e.target.dataset;if(t.d!==undefined)unit(+t.d);else if(t.c!==undefined)column(+t.c);else out()});
 svg.addEventListener('keydown',function(e){var k=e.key,set;if(k==='+'||k==='=')zoom(1/1.5);else if(k==='-')zoom(1.5);else if(k==='0'){view=[0,0,W,H];look()}
  else if(k==='Escape')out();
  else if(k==='ArrowRight'||k==='ArrowLeft')column(Math.max(0,Math.min(sets.length-1,at[0]+(k==='ArrowRight'?1:-1))));
  else if((k==='ArrowDown'||k==='ArrowUp')&&at[0]>=0){set=sets[at[0]];if(set.length)unit(set[Math.max(0,Math.min(set.length-1,at[1]+(k==='ArrowDown'?1:-1)))])}
  else return;e.preventDefault()});
 look();draw();host.dataset.lines=from.length});
document.documentElement.dataset.ready='yes';
})();
