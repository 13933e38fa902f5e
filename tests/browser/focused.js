// Which control has the focus, and whether it, or the box around it, is outlined.
() => {
  const one = document.activeElement;
  const outlined = (part) => {
    const look = part && getComputedStyle(part);
    return look && look.outlineStyle !== "none" && parseFloat(look.outlineWidth) > 0 && !look.outlineColor.endsWith(", 0)");
  };
  return [one.dataset.control ?? "", [one, one.parentElement, one.parentElement?.parentElement].some(outlined)];
}
