// How many pixels have a device's colour in a part of a lane's plot, `from` and `to` as shares of its width.
([lane, from, to]) => {
  const canvas = document.querySelector(`#lane-${lane} canvas`);
  const over = document.querySelector(`#lane-${lane} .u-over`);
  const scale = canvas.width / canvas.clientWidth;
  const left = (over.offsetLeft + from * over.clientWidth) * scale;
  const width = (to - from) * over.clientWidth * scale;
  const part = canvas.getContext("2d").getImageData(left, over.offsetTop * scale, width, over.clientHeight * scale);
  let count = 0;
  for (let at = 0; at < part.data.length; at += 4) {
    const colours = part.data.slice(at, at + 3);
    if (Math.max(...colours) - Math.min(...colours) > 60) count += 1;
  }
  return count;
}
